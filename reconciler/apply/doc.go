// Package apply makes a cluster hold a set of objects, and no more of its own.
//
// An [Engine] sends objects by server-side apply in stages (definitions and
// namespaces, class-like kinds, the rest), remembers in an inventory what it
// sent, deletes what is no longer wanted, undoes what others change, and says
// how healthy the objects are. There may be many engines. They share a [Hub],
// which watches the metadata of all their objects and tells each engine when
// there is something to do; nothing is polled, and an engine with nothing to do
// requests nothing.
//
// It promises that one failing object does not hold up those that do not depend
// on it, that an object that did not change is not sent again, that nothing is
// deleted after an error or beyond the guard, and that only objects carrying its
// labels are ever deleted. A crash at any moment loses track of no object. No
// method waits for the health or the end of an object: it returns what is
// missing and calls Options.Notify when that moves. (A definition is waited for,
// some seconds at most, since its kind is of no use before.)
//
// What is drift is read from the managed fields, in which the API server records
// who set a field last: see fields.go. It is the same for every kind, needs no
// copy of the objects, and tells who changed what without a request. What others
// add is theirs, but for kubectl and tools that applied the object before; their
// fields become ours and go if Git does not have them, as with Flux.
//
// The inventory is kept in the cluster and not in a file on the node: it is then
// as old as the objects it lists, also after etcd was restored from a snapshot,
// and any control-plane node can go on from it. It is extended before objects
// are sent and shortened after they are deleted. A file on the node (memo.go)
// only saves sending again after a restart what is there already.
//
// The package must not know Git, nor where the objects come from.
//
// Map: engine.go (state and options), options.go, sync.go (one pass), object.go
// (one object), send.go (one request and its answer), takeover.go, ignore.go,
// stages.go; record.go, configmapstore.go and prune.go (inventory), delete.go;
// hub.go and watch.go (what happens in the cluster), observe.go (what it means),
// fields.go, drift.go (who did it), fight.go, refresh.go (without a hub),
// memo.go; health.go, extra.go, rules.go; plan.go and present.go (dry run);
// client.go and kinds.go (connection), errors.go, id.go.
package apply
