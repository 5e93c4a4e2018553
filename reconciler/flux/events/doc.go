// Package events tells what happened to objects of the Flux API: as Kubernetes
// Events on the object, and to whoever subscribes, such as the alerts of the
// notification API.
//
// It promises that reporting never holds up work: [Bus.Event] returns at once,
// a bounded queue decouples it from the API server, and what does not fit or
// cannot be delivered within half a minute is lost and counted. The same
// message on the same object becomes one Kubernetes Event whose count rises, at
// most one write a minute; writes trickle, so that a burst of events does not
// compete with the work that caused it. Nothing runs while nothing happens.
//
// It must not know what the events mean or who listens.
//
// Map: recorder.go (what controllers see), bus.go (the queue and its
// subscribers), series.go (which events are the same), writer.go (the API
// server).
package events
