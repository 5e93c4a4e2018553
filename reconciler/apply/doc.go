// Package apply makes a cluster hold a set of objects, and no more of its own.
//
// An [Engine] sends objects by server-side apply in stages (definitions and
// namespaces, class-like kinds, the rest), remembers in an inventory what it
// sent, deletes what is no longer wanted, looks for drift, and says how healthy
// the objects are. It promises that one failing object does not hold up those
// that do not depend on it, that an object that did not change is not sent
// again, that nothing is deleted after an error or beyond the guard, and that
// only objects carrying its label are ever deleted.
//
// The inventory is a ConfigMap in the cluster and not a file on the node: it is
// then as old as the objects it lists, also after etcd was restored from a
// snapshot, and any control-plane node can go on from it. It is extended before
// objects are sent and shortened after they are deleted, so that a crash in
// between never loses track of one.
//
// The package must not know Git.
//
// Map: engine.go (state), sync.go (one pass over all objects), object.go (one
// object), stages.go, inventory.go, prune.go, drift.go, health.go, client.go
// (connection and kinds), errors.go.
package apply
