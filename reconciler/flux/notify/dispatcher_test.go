package notify

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

func TestWhichEventsAnAlertIsAbout(t *testing.T) {
	labelled := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web", Labels: map[string]string{"team": "blue"}}}
	d, _ := newTestDispatcher(t, labelled)
	type spec = notificationv1beta3.AlertSpec
	source := func(kind, name, namespace string) []notificationv1.CrossNamespaceObjectReference {
		return []notificationv1.CrossNamespaceObjectReference{{Kind: kind, Name: name, Namespace: namespace}}
	}
	fails := func(e *events.Event) { e.Severity = eventv1.EventSeverityError }
	for name, c := range map[string]struct {
		alert func(*spec)
		event func(*events.Event)
		want  bool
	}{
		"every name":              {nil, nil, true},
		"its name":                {func(s *spec) { s.EventSources = source("Kustomization", "web", "") }, nil, true},
		"another name":            {func(s *spec) { s.EventSources = source("Kustomization", "db", "") }, nil, false},
		"another kind":            {func(s *spec) { s.EventSources = source("HelmRelease", "*", "") }, nil, false},
		"another namespace":       {func(s *spec) { s.EventSources = source("Kustomization", "*", "infra") }, nil, false},
		"one of several":          {func(s *spec) { s.EventSources = append(source("HelmRelease", "*", ""), s.EventSources...) }, nil, true},
		"suspended":               {func(s *spec) { s.Suspend = true }, nil, false},
		"only errors":             {func(s *spec) { s.EventSeverity = "error" }, nil, false},
		"only errors, an error":   {func(s *spec) { s.EventSeverity = "error" }, fails, true},
		"info and worse":          {func(s *spec) { s.EventSeverity = "info" }, fails, true},
		"included":                {func(s *spec) { s.InclusionList = []string{"nothing", "^applied"} }, nil, true},
		"not included":            {func(s *spec) { s.InclusionList = []string{"^failed"} }, nil, false},
		"excluded":                {func(s *spec) { s.ExclusionList = []string{"web config"} }, nil, false},
		"included and excluded":   {func(s *spec) { s.InclusionList, s.ExclusionList = []string{"applied"}, []string{"Deployment"} }, nil, false},
		"an expression that errs": {func(s *spec) { s.ExclusionList = []string{"("} }, nil, true},
		"its labels":              {func(s *spec) { s.EventSources[0].MatchLabels = map[string]string{"team": "blue"} }, nil, true},
		"other labels":            {func(s *spec) { s.EventSources[0].MatchLabels = map[string]string{"team": "red"} }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wants(t.Context(), alertFor(provider("generic", ""), c.alert), event(c.event), d.labels)
			if err != nil || got != c.want {
				t.Errorf("%v %v", got, err)
			}
		})
	}
}

func TestMetadataOfAnAlert(t *testing.T) {
	e := event(func(e *events.Event) {
		e.Metadata = map[string]string{
			"revision": "r1", "token": "t", "digest": "d",
			"event.toolkit.fluxcd.io/team": "annotated", "event.toolkit.fluxcd.io/revision": "annotated",
		}
	})
	a := alertFor(provider("generic", ""), func(s *notificationv1beta3.AlertSpec) {
		s.EventMetadata = map[string]string{"team": "of the alert", "revision": "of the alert", "region": "eu"}
		s.Summary = "a summary"
	})
	got := told(a, e).Metadata
	want := map[string]string{"revision": "r1", "team": "of the alert", "region": "eu", "summary": "a summary"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if len(e.Metadata) != 5 {
		t.Error("the event itself was changed")
	}
}

func TestSameEventIsToldOnce(t *testing.T) {
	l := listen(t, nil)
	p := provider("generic", l.URL)
	d, _ := newTestDispatcher(t, p, alertFor(p, nil), secret("token"))
	start(t, d)
	for range 5 {
		d.offer(event(nil))
	}
	d.offer(event(func(e *events.Event) { e.Metadata = map[string]string{"revision": "main@sha1:2"} }))
	d.offer(event(func(e *events.Event) { e.Message = "last" }))
	eventually(t, "three calls", func() bool { return len(l.got()) >= 3 })
	for i, want := range []string{commit, "main@sha1:2", "last"} {
		if got := l.got(); len(got) != 3 || !strings.Contains(got[i].body, want) {
			t.Errorf("call %d of %d: %s", i, len(got), got[i].body)
		}
	}
	if d.repeated(event(nil), time.Now().Add(sameEvent+time.Second)) {
		t.Error("not told again after five minutes")
	}
}

func TestDeliveryIsTriedAgain(t *testing.T) {
	l := listen(t, func(n int, _ call) (int, string) {
		if n < 3 {
			return http.StatusServiceUnavailable, "busy"
		}
		return http.StatusOK, ""
	})
	p := provider("generic", l.URL)
	d, s := newTestDispatcher(t, p, alertFor(p, nil), secret("token"))
	start(t, d)
	d.offer(event(nil))
	eventually(t, "the third attempt", func() bool { return len(l.got()) == 3 })
	if got := s.get(); len(got) != 0 {
		t.Errorf("said %v", got)
	}
}

func TestFailureIsSaidWithoutSecrets(t *testing.T) {
	l := listen(t, func(_ int, c call) (int, string) {
		return http.StatusUnauthorized, "no such token: " + c.header.Get("Authorization")
	})
	p := provider("slack", "")
	d, s := newTestDispatcher(t, p, alertFor(p, nil), secret("token", "token", testToken, "address", l.URL+"/services/T0/B0/the-secret-path"))
	start(t, d)
	d.offer(event(nil))
	eventually(t, "an event", func() bool { return len(s.get()) == 1 })
	got := s.get()[0]
	if !strings.HasPrefix(got, "error alert-slack NotificationDispatchFailed: failed to send notification for Kustomization/apps/web: 127.0.0.1") || !strings.Contains(got, "check the token") {
		t.Errorf("said %q", got)
	}
	if strings.Contains(got, testToken) || strings.Contains(got, "the-secret-path") {
		t.Errorf("a secret was told: %q", got)
	}
	if len(l.got()) != 1 {
		t.Errorf("a refusal was tried again: %d calls", len(l.got()))
	}
	l.Close()
	d.offer(event(func(e *events.Event) { e.Message = "other" }))
	eventually(t, "another event", func() bool { return len(s.get()) == 2 })
	if got := s.get()[1]; strings.Contains(got, "the-secret-path") || !strings.Contains(got, "does not answer") {
		t.Errorf("said %q", got)
	}
}

func TestProviderThatHangsDelaysNoOther(t *testing.T) {
	hold := make(chan struct{})
	slow := listen(t, func(int, call) (int, string) { <-hold; return 200, "" })
	defer close(hold)
	fast := listen(t, nil)
	ps, pf := provider("generic", slow.URL), provider("alertmanager", fast.URL)
	d, _ := newTestDispatcher(t, ps, pf, alertFor(ps, nil), alertFor(pf, nil), secret("token"))
	start(t, d)
	for i := range perProvider + 50 {
		d.offer(event(func(e *events.Event) { e.Message = fmt.Sprint(i) }))
		eventually(t, "the other's call", func() bool { return len(fast.got()) == i+1 })
	}
	for i, c := range fast.got() {
		if !strings.Contains(c.body, fmt.Sprintf(`"message":"%d"`, i)) {
			t.Fatalf("out of order: call %d is %s", i, c.body)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, waiting := range d.lanes {
		if len(waiting) > perProvider {
			t.Errorf("%d wait for %s", len(waiting), key)
		}
	}
}

func TestUnsupportedProvider(t *testing.T) {
	p := provider("pagerduty", "https://events.example")
	err := checkProvider(p)
	if err == nil || !strings.Contains(err.Error(), `"pagerduty" is not supported`) || !strings.Contains(err.Error(), "alertmanager, bitbucketserver, discord, generic, generic-hmac, gitea, github, gitlab") {
		t.Errorf("%v", err)
	}
	for name, bad := range map[string]*notificationv1beta3.Provider{
		"no address":      {Spec: notificationv1beta3.ProviderSpec{Type: "slack"}},
		"no scheme":       provider("slack", "hooks.slack.com/services"),
		"a file":          provider("generic", "file:///etc/passwd"),
		"no repository":   provider("github", "https://github.com"),
		"bad expression":  {Spec: notificationv1beta3.ProviderSpec{Type: "github", Address: "https://github.com/o/r", CommitStatusExpr: "event."}},
		"workload ident.": {Spec: notificationv1beta3.ProviderSpec{Type: "generic", Address: "https://x.example", ServiceAccountName: "sa"}},
	} {
		if err := checkProvider(bad); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := checkAlert(alertFor(p, func(s *notificationv1beta3.AlertSpec) { s.InclusionList = []string{"ok", "("} })); err == nil || !strings.Contains(err.Error(), "spec.inclusionList[1]") {
		t.Errorf("%v", err)
	}
}

func TestSuspendedProviderIsLeftAlone(t *testing.T) {
	l := listen(t, nil)
	p := provider("generic", l.URL)
	p.Spec.Suspend = true
	d, s := newTestDispatcher(t, p, secret("token"))
	if err := d.deliver(t.Context(), keyOf(p), delivery{alertFor(p, nil), event(nil)}); err != nil || len(l.got()) != 0 {
		t.Errorf("%v %v %v", err, l.got(), s.get())
	}
}
