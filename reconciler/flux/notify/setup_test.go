package notify

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	notificationv1 "github.com/fluxcd/notification-controller/api/v1"
	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bothy-os/bothy/reconciler/flux/env"
	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// kinds stands in for an API server's discovery.
func kinds(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{
		notificationv1.GroupVersion.WithKind("Receiver"), notificationv1beta3.GroupVersion.WithKind("Provider"), notificationv1beta3.GroupVersion.WithKind("Alert"),
	} {
		m.Add(gvk, meta.RESTScopeNamespace)
	}
	return m, nil
}

func TestSetupCanBeRepeated(t *testing.T) {
	hooks := NewHooks()
	for range 2 {
		mgr, err := ctrl.NewManager(&rest.Config{Host: "http://127.0.0.1:1"}, ctrl.Options{
			Scheme: newScheme(t), MapperProvider: kinds, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		})
		if err != nil {
			t.Fatal(err)
		}
		e := env.Env{Events: events.New(events.Config{Scheme: mgr.GetScheme()}), Log: slog.New(slog.DiscardHandler)}
		if err := hooks.Setup(mgr, e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestObjectsWithoutStatus(t *testing.T) {
	bad := provider("pagerduty", "https://x.example")
	bad.Generation = 1
	leaving := provider("slack", "https://x.example")
	leaving.Finalizers = []string{notificationv1.NotificationFinalizer}
	leaving.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time}
	cl := newClient(t, bad, leaving)
	s := &said{}
	c := &objects{client: cl, events: s, blank: &notificationv1beta3.Provider{}, check: checkProvider, told: map[string]int64{}}
	for range 3 {
		for _, o := range []client.Object{bad, leaving} {
			if _, err := c.Reconcile(t.Context(), ctrl.Request{NamespacedName: keyOf(o)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := s.get(); len(got) != 1 || !strings.HasPrefix(got[0], "error pagerduty InvalidConfig: provider type") {
		t.Errorf("said %v", got)
	}
	if err := cl.Get(t.Context(), keyOf(leaving), &notificationv1beta3.Provider{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the object that was deleted is held: %v", err)
	}
}
