package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/endpoint/webhook"
)

// genuine checks a call that came to the right path, and returns the event it
// names, if its kind has events.
type genuine func(header http.Header, token, body []byte) (event string, err error)

// genuineChecks are the types of receivers that are supported. For those that
// do not sign, the path, which nobody can guess, is all there is; their body
// must at least look right.
func genuineChecks() map[string]genuine {
	return map[string]genuine{
		notificationv1.GenericReceiver: func(http.Header, []byte, []byte) (string, error) { return "", nil },
		notificationv1.GenericHMACReceiver: func(h http.Header, token, body []byte) (string, error) {
			return "", webhook.CheckHMAC(h, "X-Signature", token, body, "sha256", "sha512", "sha1")
		},
		notificationv1.GitHubReceiver: func(h http.Header, token, body []byte) (string, error) {
			name := "X-Hub-Signature-256"
			if h.Get(name) == "" {
				name = "X-Hub-Signature"
			}
			return h.Get("X-GitHub-Event"), webhook.CheckHMAC(h, name, token, body, "sha256", "sha1")
		},
		notificationv1.GitLabReceiver: func(h http.Header, token, _ []byte) (string, error) {
			return h.Get("X-Gitlab-Event"), webhook.CheckToken(h, "X-Gitlab-Token", "", token)
		},
		notificationv1.BitbucketReceiver: func(h http.Header, token, body []byte) (string, error) {
			return h.Get("X-Event-Key"), webhook.CheckHMAC(h, "X-Hub-Signature", token, body, "sha256", "sha1")
		},
		notificationv1.HarborReceiver: func(h http.Header, token, _ []byte) (string, error) {
			return "", webhook.CheckToken(h, "Authorization", "", token)
		},
		notificationv1.NexusReceiver: func(h http.Header, token, body []byte) (string, error) {
			if err := webhook.CheckHMAC(h, "X-Nexus-Webhook-Signature", token, body, "sha1"); err != nil {
				return "", err
			}
			return "", hasFields(body)
		},
		notificationv1.DockerHubReceiver: func(_ http.Header, _, body []byte) (string, error) {
			return "", hasFields(body, "push_data", "repository")
		},
		notificationv1.QuayReceiver: func(_ http.Header, _, body []byte) (string, error) {
			return "", hasFields(body, "docker_url")
		},
		notificationv1.ACRReceiver: func(_ http.Header, _, body []byte) (string, error) {
			return "", hasFields(body, "action", "target")
		},
		notificationv1.CDEventsReceiver: func(h http.Header, _, body []byte) (string, error) {
			return h.Get("Ce-Type"), hasFields(body, "context", "subject")
		},
	}
}

func supportedReceivers() []string { return slices.Sorted(maps.Keys(genuineChecks())) }

// hasFields checks that the body is a JSON object with these fields.
func hasFields(body []byte, names ...string) error {
	var payload map[string]json.RawMessage
	if json.Unmarshal(body, &payload) != nil {
		return errors.New("the body is not a JSON object")
	}
	for _, name := range names {
		if _, ok := payload[name]; !ok {
			return fmt.Errorf("the body has no field %q", name)
		}
	}
	return nil
}

// allowed reports whether spec.events lets an event through. Kinds that have no
// events are not filtered.
func allowed(r *notificationv1.Receiver, event string) bool {
	switch r.Spec.Type {
	case notificationv1.GitHubReceiver, notificationv1.GitLabReceiver, notificationv1.BitbucketReceiver, notificationv1.CDEventsReceiver:
	default:
		return true
	}
	return len(r.Spec.Events) == 0 || slices.ContainsFunc(r.Spec.Events, func(one string) bool { return strings.EqualFold(one, event) })
}
