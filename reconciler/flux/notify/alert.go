package notify

import (
	"context"
	"maps"
	"regexp"
	"strings"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// labelsOf returns the labels of the object that an event is about.
type labelsOf func(context.Context, events.Event) (labels.Set, error)

// wants reports whether an alert is about an event.
func wants(ctx context.Context, a *notificationv1beta3.Alert, e events.Event, of labelsOf) (bool, error) {
	if a.Spec.Suspend || !severe(a, e) {
		return false, nil
	}
	if len(a.Spec.InclusionList) > 0 && !matchesAny(a.Spec.InclusionList, e.Message) || matchesAny(a.Spec.ExclusionList, e.Message) {
		return false, nil
	}
	for _, source := range a.Spec.EventSources {
		if !names(source, a.Namespace, e) {
			continue
		}
		if source.MatchLabels == nil {
			return true, nil
		}
		have, err := of(ctx, e)
		if err != nil {
			return false, err
		}
		if labels.SelectorFromSet(source.MatchLabels).Matches(have) {
			return true, nil
		}
	}
	return false, nil
}

// severe applies eventSeverity: info, the default, lets everything through.
func severe(a *notificationv1beta3.Alert, e events.Event) bool {
	return a.Spec.EventSeverity == "" || a.Spec.EventSeverity == eventv1.EventSeverityInfo || a.Spec.EventSeverity == e.Severity
}

// names compares an event source with the object, all but the labels.
func names(source notificationv1.CrossNamespaceObjectReference, namespace string, e events.Event) bool {
	if source.Namespace != "" {
		namespace = source.Namespace
	}
	o := e.InvolvedObject
	return o.Kind == source.Kind && o.Namespace == namespace && (source.Name == "*" || source.Name == o.Name)
}

// matchesAny ignores expressions that are none: the alert's controller has said
// so.
func matchesAny(expressions []string, text string) bool {
	for _, expression := range expressions {
		if r, err := regexp.Compile(expression); err == nil && r.MatchString(text) {
			return true
		}
	}
	return false
}

// told is the event as the alert tells it. Of the same key, the object's
// annotations give way to the alert's metadata, and those to what the
// controller says.
func told(a *notificationv1beta3.Alert, e events.Event) events.Event {
	const prefix = eventv1.Group + "/"
	metadata := map[string]string{}
	for key, value := range e.Metadata {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			metadata[name] = value
		}
	}
	maps.Copy(metadata, a.Spec.EventMetadata)
	if a.Spec.Summary != "" {
		metadata["summary"] = a.Spec.Summary
	}
	for key, value := range e.Metadata {
		if !strings.Contains(key, "/") && !internal(key) {
			metadata[key] = value
		}
	}
	e.Metadata = metadata
	return e
}

// internal says which facts are not for telling.
func internal(key string) bool {
	switch key {
	case eventv1.MetaTokenKey, eventv1.MetaDigestKey, eventv1.MetaChecksumKey:
		return true
	}
	return false
}
