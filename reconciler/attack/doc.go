// Package attack tries to make a site run what nobody may make it run.
//
// It holds tests only. Each builds a real repository with the real git, lets
// the real component fetch it, and expects a refusal that names the rule and
// the offender while the site stays on what it ran before. Each has a
// legitimate twin that differs in nothing but what makes it legal, and that is
// accepted: a test that refuses everything would prove nothing.
//
// Map: attack_test.go (how a row is run), world_test.go (repository, keys and
// machine), one file of rows per field: signature, certificate, history, trust
// root, rules, content and first boot.
package attack
