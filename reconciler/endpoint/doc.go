// Package endpoint is the agent's own HTTPS listener: a site can be pushed to
// like any Git server, and Git servers can tell it that there is something to
// fetch.
//
//	/git/<any name>.git  smart HTTP: git push, git fetch and git clone of the site's branch
//	/hook                webhooks about the boot repository
//	/hook/<digest>       Receivers of the Flux API, if there is a handler for them
//	/healthz             answers 200 while the agent serves
//
// It promises: who pushes is known by a client certificate or a token and is
// named in one log line per push; a pushed commit is judged by the acceptance
// rules before the branch moves, and a refusal is shown by git push itself, with
// the rule, the problem and the remedy; nothing but the site's branch can be
// pushed, deleted or rewritten; a push cannot cost more memory or disk than its
// limits; secrets are compared in constant time and never logged; whoever fails
// to identify too often is turned away for a while. A webhook can only cause a
// fetch, so a replayed one does no harm.
//
// It must not know what makes a commit acceptable or what a Receiver does; it
// gets an [Acceptor] and an http.Handler.
//
// Map: endpoint.go (the server's life), certificate.go (its identity), access.go
// and failures.go (who calls), git.go (routes of the Git protocol), receive.go
// (push), upload.go (fetch), stream.go (answers), hook.go. Below: webhook
// (whether a call of a Git server is genuine, and what it says).
package endpoint
