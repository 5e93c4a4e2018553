// Package notify serves the notification API of Flux: Alerts choose events and
// send them through Providers to chats, webhooks and commit statuses; Receivers
// let the outside world ask for a reconcile.
//
// It promises: nothing here holds up a controller, since events wait in bounded
// queues, one per Provider, so that a Provider that is down delays no other and
// what it is told stays in order; the same event is told once in five minutes;
// a delivery that fails is tried again with growing pauses, and then the Alert
// gets a Kubernetes Event that says so; addresses and tokens, which are secrets
// both, appear in no error, event or log. A Receiver's call can do no more than
// ask for a reconcile, so a replayed one does no harm.
//
// Provider and Alert have no status in Flux's API: what is wrong with one is said
// by a Kubernetes Event on it. Receivers have Flux's conditions.
//
// It must not know what reconciles the objects or who serves HTTP.
//
// Map: setup.go (joins the parts), objects.go (the controllers of Provider and
// Alert), alert.go (which events an Alert is about), dispatcher.go (the queues),
// target.go and post.go (a Provider ready for use), chat.go, monitoring.go,
// forward.go and commitstatus.go (what is sent), receiver.go (the controller of
// Receiver), hooks.go (the HTTP side), genuine.go (checks of a call).
package notify
