package notify

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// alert is what Alertmanager's API takes a list of.
type alert struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
}

// sendAlertmanager raises an alert. It resolves after Alertmanager's own
// resolve_timeout: an event does not say when its cause ends.
func sendAlertmanager(ctx context.Context, t *target, e events.Event) error {
	a := alert{Status: "firing", Labels: maps.Clone(e.Metadata), Annotations: map[string]string{"message": e.Message}, StartsAt: e.Timestamp.Format(time.RFC3339)}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	if summary, ok := a.Labels["summary"]; ok {
		a.Annotations["summary"] = summary
		delete(a.Labels, "summary")
	}
	maps.Copy(a.Labels, map[string]string{
		// Flux's letter case: one capital, then small letters.
		"alertname": "Flux" + e.InvolvedObject.Kind + capital(strings.ToLower(e.Reason)),
		"severity":  e.Severity, "reason": e.Reason,
		"kind": e.InvolvedObject.Kind, "name": e.InvolvedObject.Name, "namespace": e.InvolvedObject.Namespace,
		"reportingcontroller": e.ReportingController,
	})
	_, err := t.request(ctx, http.MethodPost, t.address, []alert{a}, t.authorise)
	return err
}

func capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// sendGrafana adds an annotation in the form that Grafana takes from Graphite.
func sendGrafana(ctx context.Context, t *target, e events.Event) error {
	tags := []string{"flux", e.ReportingController}
	clean := strings.NewReplacer(":", "|")
	for _, key := range keys(e) {
		tags = append(tags, clean.Replace(key)+": "+clean.Replace(e.Metadata[key]))
	}
	tags = append(tags, "kind: "+e.InvolvedObject.Kind, "name: "+e.InvolvedObject.Name, "namespace: "+e.InvolvedObject.Namespace)
	_, err := t.request(ctx, http.MethodPost, t.address, map[string]any{
		"when": e.Timestamp.Unix(), "text": fmt.Sprintf("%s: %s", title(e), e.Message), "tags": tags,
	}, t.authorise)
	return err
}
