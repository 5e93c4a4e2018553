// Package flows tells people what becomes of their packets: live, as the
// dataplane's programs see them, and as the table of present connections.
//
// A [Hub] listens to the programs only while somebody watches. The first watcher makes
// the ring the events come through, the last one takes it away; in between the
// programs raise no kind of event that nobody asked for. Names are looked up in what the
// node holds anyway: no watch on the API is opened for them.
//
// Promises: a slow watcher delays neither the programs nor another watcher; what it misses is
// counted and told. A flow is reported with the ends' names as far as they
// are known, and never held back for one.
//
// The package must not know where names come from ([Names]), nor who serves the watchers.
//
// Map: flow.go is what is told; filter.go chooses; hub.go listens and spreads; names.go
// puts names to addresses; table.go reads conntrack; reasons.go explains why packets
// are dropped.
package flows
