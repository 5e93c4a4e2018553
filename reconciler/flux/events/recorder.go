package events

import (
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Recorder is what a controller reports through.
type Recorder interface {
	// Event reports that something happened to object. severity is
	// eventv1.EventSeverityInfo, Error or Trace; reason is one word in camel case;
	// metadata are further facts such as {"revision": …}, without the API group
	// prefix that Flux puts before them. It never blocks and never fails: events
	// are lost rather than work held up.
	Event(object client.Object, severity, reason, message string, metadata map[string]string)
}

// Publisher is where one subscribes to what is reported.
type Publisher interface {
	// Subscribe calls tell for each event that is not a mere trace, in the order
	// of Event's calls of one goroutine, from the goroutine that reports: tell
	// must not block, and must not change the event. The returned function ends
	// the subscription.
	Subscribe(tell func(Event)) (cancel func())
}

// Event is what subscribers get. The keys of its metadata are as given to the
// recorder; the object's own annotations of group event.toolkit.fluxcd.io are
// among them, with their prefix.
type Event = eventv1.Event
