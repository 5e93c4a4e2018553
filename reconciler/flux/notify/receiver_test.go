package notify

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func receiver(kind string, change func(*notificationv1.Receiver)) *notificationv1.Receiver {
	r := &notificationv1.Receiver{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "hook", Generation: 3},
		Spec: notificationv1.ReceiverSpec{
			Type: kind, SecretRef: &meta.LocalObjectReference{Name: "token"},
			Resources: []notificationv1.ReceiverResource{{CrossNamespaceObjectReference: notificationv1.CrossNamespaceObjectReference{Kind: "GitRepository", Name: "site"}}},
		},
	}
	if change != nil {
		change(r)
	}
	return r
}

func repository(name string, labels map[string]string) *sourcev1.GitRepository {
	return &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name, Labels: labels}}
}

func reconcileReceiver(t *testing.T, c client.Client) (*notificationv1.Receiver, ctrl.Result, *said) {
	t.Helper()
	s := &said{}
	name := client.ObjectKey{Namespace: "apps", Name: "hook"}
	result, err := (&receivers{client: c, events: s}).Reconcile(t.Context(), ctrl.Request{NamespacedName: name})
	if err != nil {
		t.Fatal(err)
	}
	var r notificationv1.Receiver
	if err := c.Get(t.Context(), name, &r); err != nil {
		t.Fatal(err)
	}
	return &r, result, s
}

func TestReceiverGetsItsPath(t *testing.T) {
	c := newClient(t, receiver("github", func(r *notificationv1.Receiver) {
		r.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
	}), secret("token", "token", testToken))
	r, result, s := reconcileReceiver(t, c)
	sum := sha256.Sum256([]byte(testToken + "hook" + "apps"))
	path := "/hook/" + hex.EncodeToString(sum[:])
	if r.Status.WebhookPath != path || !conditions.IsReady(r) || conditions.GetMessage(r, meta.ReadyCondition) != "Receiver initialized for path: "+path || r.Status.ObservedGeneration != 3 || r.Status.LastHandledReconcileAt != "now" {
		t.Errorf("%+v", r.Status)
	}
	if result.RequeueAfter < 9*time.Minute || result.RequeueAfter > 11*time.Minute {
		t.Errorf("again after %s", result.RequeueAfter)
	}
	if got := s.get(); len(got) != 1 || strings.Contains(got[0], path) {
		t.Errorf("said %v", got)
	}
	again, _, s := reconcileReceiver(t, c)
	if again.ResourceVersion != r.ResourceVersion || len(s.get()) != 0 {
		t.Error("a second time wrote something, with nothing new")
	}
}

func TestReceiverThatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		receiver *notificationv1.Receiver
		secret   []string
		reason   string
		message  string
		stalled  bool
	}{
		"unsupported":    {receiver("gcr", nil), []string{"token", "x"}, "ValidationFailed", "use one of acr, bitbucket, cdevents, dockerhub, generic, generic-hmac, github, gitlab, harbor, nexus, quay", true},
		"no token":       {receiver("github", nil), nil, "TokenNotFound", "has no key token", false},
		"empty token":    {receiver("github", nil), []string{"token", ""}, "TokenNotFound", "has no key token", false},
		"bad filter":     {receiver("github", func(r *notificationv1.Receiver) { r.Spec.ResourceFilter = "res." }), []string{"token", "x"}, "InvalidCELExpression", "spec.resourceFilter", true},
		"not a boolean":  {receiver("github", func(r *notificationv1.Receiver) { r.Spec.Resources[0].Filter = "'x'" }), []string{"token", "x"}, "InvalidCELExpression", "spec.resources[0].filter", true},
		"missing labels": {receiver("github", func(r *notificationv1.Receiver) { r.Spec.Resources[0].Name = "*" }), []string{"token", "x"}, "ValidationFailed", "needs matchLabels", true},
	} {
		t.Run(name, func(t *testing.T) {
			r, result, s := reconcileReceiver(t, newClient(t, c.receiver, secret("token", c.secret...)))
			if conditions.IsReady(r) || conditions.GetReason(r, meta.ReadyCondition) != c.reason || !strings.Contains(conditions.GetMessage(r, meta.ReadyCondition), c.message) {
				t.Errorf("%+v", r.Status.Conditions)
			}
			if conditions.IsStalled(r) != c.stalled || (result.RequeueAfter == 0) != c.stalled || r.Status.WebhookPath != "" || len(s.get()) != 1 {
				t.Errorf("stalled %v, again after %s, path %q, said %v", conditions.IsStalled(r), result.RequeueAfter, r.Status.WebhookPath, s.get())
			}
		})
	}
}

func TestFinalizersOfAnEarlierControllerAreRemoved(t *testing.T) {
	c := newClient(t, receiver("github", func(r *notificationv1.Receiver) { r.Finalizers = []string{notificationv1.NotificationFinalizer} }))
	name := client.ObjectKey{Namespace: "apps", Name: "hook"}
	var r notificationv1.Receiver
	if err := c.Get(t.Context(), name, &r); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if _, err := (&receivers{client: c, events: &said{}}).Reconcile(t.Context(), ctrl.Request{NamespacedName: name}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), name, &r); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("still there: %v", err)
	}
}

func mac(algorithm func() hash.Hash, body string) string {
	h := hmac.New(algorithm, []byte(testToken))
	h.Write([]byte(body))
	return hex.EncodeToString(h.Sum(nil))
}

func TestCallsOfReceivers(t *testing.T) {
	const body = `{"ref":"refs/heads/main","action":"push","target":{"repository":"r"},"push_data":{"tag":"1"},"repository":{"repo_url":"u"},"docker_url":"quay.io/a/b","context":{"id":"1"},"subject":{}}`
	pushOnly := func(r *notificationv1.Receiver) { r.Spec.Events = []string{"push"} }
	sha256Of, sha1Of := "sha256="+mac(sha256.New, body), "sha1="+mac(sha1.New, body)
	for name, c := range map[string]struct {
		receiver *notificationv1.Receiver
		header   map[string]string
		body     string
		code     int
	}{
		"generic":             {receiver("generic", nil), nil, "", 200},
		"generic-hmac":        {receiver("generic-hmac", nil), map[string]string{"X-Signature": sha256Of}, body, 200},
		"generic-hmac, wrong": {receiver("generic-hmac", nil), map[string]string{"X-Signature": sha256Of}, body + " ", 400},
		"generic-hmac, none":  {receiver("generic-hmac", nil), nil, body, 400},
		"github":              {receiver("github", pushOnly), map[string]string{"X-Hub-Signature-256": sha256Of, "X-GitHub-Event": "push"}, body, 200},
		"github, old":         {receiver("github", nil), map[string]string{"X-Hub-Signature": sha1Of}, body, 200},
		"github, other event": {receiver("github", pushOnly), map[string]string{"X-Hub-Signature-256": sha256Of, "X-GitHub-Event": "issues"}, body, 400},
		"github, wrong":       {receiver("github", nil), map[string]string{"X-Hub-Signature-256": "sha256=" + strings.Repeat("0", 64)}, body, 400},
		"gitlab":              {receiver("gitlab", func(r *notificationv1.Receiver) { r.Spec.Events = []string{"Push Hook"} }), map[string]string{"X-Gitlab-Token": testToken, "X-Gitlab-Event": "Push Hook"}, body, 200},
		"gitlab, wrong":       {receiver("gitlab", nil), map[string]string{"X-Gitlab-Token": "x"}, body, 400},
		"bitbucket":           {receiver("bitbucket", nil), map[string]string{"X-Hub-Signature": sha256Of, "X-Event-Key": "repo:refs_changed"}, body, 200},
		"harbor":              {receiver("harbor", nil), map[string]string{"Authorization": testToken}, body, 200},
		"harbor, wrong":       {receiver("harbor", nil), map[string]string{"Authorization": "x"}, body, 400},
		"dockerhub":           {receiver("dockerhub", nil), nil, body, 200},
		"dockerhub, other":    {receiver("dockerhub", nil), nil, "{}", 400},
		"quay":                {receiver("quay", nil), nil, body, 200},
		"nexus":               {receiver("nexus", nil), map[string]string{"X-Nexus-Webhook-Signature": mac(sha1.New, body)}, body, 200},
		"nexus, wrong":        {receiver("nexus", nil), map[string]string{"X-Nexus-Webhook-Signature": mac(sha1.New, "x")}, body, 400},
		"acr":                 {receiver("acr", nil), nil, body, 200},
		"cdevents":            {receiver("cdevents", nil), map[string]string{"Ce-Type": "dev.cdevents.change.merged.0.2.0"}, body, 200},
		"too long":            {receiver("generic", nil), nil, strings.Repeat("x", maxCall+1), 413},
		"suspended":           {receiver("generic", func(r *notificationv1.Receiver) { r.Spec.Suspend = true }), nil, "", 503},
	} {
		t.Run(name, func(t *testing.T) {
			suspend := c.receiver.Spec.Suspend
			c.receiver.Spec.Suspend = false
			cl := newClient(t, c.receiver, secret("token", "token", testToken), repository("site", nil))
			r, _, _ := reconcileReceiver(t, cl)
			if suspend {
				r.Spec.Suspend = true
				if err := cl.Update(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			code, asked := ring(t, cl, r.Status.WebhookPath, c.body, c.header, "site")
			if code != c.code || (len(asked) == 1) != (c.code == 200) {
				t.Errorf("%d, asked %v", code, asked)
			}
		})
	}
}

// ring calls a path and returns which repositories are asked to reconcile.
func ring(t *testing.T, c client.Client, path, body string, header map[string]string, names ...string) (int, []string) {
	t.Helper()
	hooks := NewHooks()
	hooks.serve(&caller{client: c, direct: c, log: slog.New(slog.DiscardHandler), now: time.Now})
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for key, value := range header {
		request.Header.Set(key, value)
	}
	answer := httptest.NewRecorder()
	hooks.ServeHTTP(answer, request)
	var asked []string
	for _, name := range names {
		var r sourcev1.GitRepository
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "apps", Name: name}, &r); err != nil {
			t.Fatal(err)
		}
		if r.Annotations[meta.ReconcileRequestAnnotation] != "" {
			asked = append(asked, name)
		}
	}
	return answer.Code, asked
}

func TestResourcesOfAReceiver(t *testing.T) {
	blue, red := map[string]string{"team": "blue"}, map[string]string{"team": "red"}
	all := func(r *notificationv1.Receiver) {
		r.Spec.Resources[0].Name, r.Spec.Resources[0].MatchLabels = "*", blue
	}
	json := map[string]string{"Content-Type": "application/json; charset=utf-8"}
	for name, c := range map[string]struct {
		change func(*notificationv1.Receiver)
		body   string
		want   string
	}{
		"labels": {all, "{}", "one two"},
		"a filter of all": {func(r *notificationv1.Receiver) {
			all(r)
			r.Spec.ResourceFilter = "res.metadata.name == req.repository"
		}, `{"repository":"two"}`, "two"},
		"both filters": {func(r *notificationv1.Receiver) {
			all(r)
			r.Spec.ResourceFilter, r.Spec.Resources[0].Filter = "has(req.repository)", "res.metadata.name == 'one'"
		}, `{"repository":"two"}`, "one"},
		"filtered by name": {func(r *notificationv1.Receiver) {
			r.Spec.Resources[0].Name = "three"
			r.Spec.ResourceFilter = "res.metadata.labels.team == req.team"
		}, `{"team":"red"}`, "three"},
		"filtered out": {func(r *notificationv1.Receiver) {
			r.Spec.Resources[0].Name = "three"
			r.Spec.ResourceFilter = "res.metadata.labels.team == req.team"
		}, `{"team":"blue"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newClient(t, receiver("generic", c.change), secret("token", "token", testToken), repository("one", blue), repository("two", blue), repository("three", red))
			r, _, _ := reconcileReceiver(t, cl)
			for range 2 { // the second is a replay
				code, asked := ring(t, cl, r.Status.WebhookPath, c.body, json, "one", "two", "three")
				if code != 200 || strings.Join(asked, " ") != c.want {
					t.Errorf("%d, asked %v", code, asked)
				}
			}
		})
	}
}

func TestHooksWithoutControllersOrPath(t *testing.T) {
	answer := httptest.NewRecorder()
	NewHooks().ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/hook/x", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("%d", answer.Code)
	}
	code, _ := ring(t, newClient(t), "/hook/"+strings.Repeat("0", 64), "", nil)
	if code != http.StatusNotFound {
		t.Errorf("%d", code)
	}
}

func TestOtherNamespaces(t *testing.T) {
	r := receiver("generic", func(r *notificationv1.Receiver) { r.Spec.Resources[0].Namespace = "infra" })
	c := &caller{client: newClient(t), sameNamespace: true}
	if _, err := c.resources(t.Context(), r, r.Spec.Resources[0], false); err == nil {
		t.Error("a reference to another namespace is followed")
	}
	r.Spec.Resources[0].Kind = "ImagePolicy"
	c.sameNamespace = false
	if _, err := c.resources(t.Context(), r, r.Spec.Resources[0], false); err == nil || !strings.Contains(err.Error(), "apiVersion must be given") {
		t.Errorf("%v", err)
	}
}
