package crds_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/bothy-os/bothy/reconciler/flux/crds"
	"github.com/bothy-os/bothy/reconciler/internal/fakeapi"
)

// sent returns the definitions that were written since the last call.
func sent(s *fakeapi.Server) []string {
	return slices.DeleteFunc(s.TakeRequests(), func(r string) bool { return !strings.HasPrefix(r, "PATCH ") })
}

func TestInstallSendsOnlyWhatDiffers(t *testing.T) {
	wanted, err := crds.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	s := fakeapi.New(t)
	install := func() []string {
		t.Helper()
		if err := crds.Install(t.Context(), &rest.Config{Host: s.URL}); err != nil {
			t.Fatal(err)
		}
		return sent(s)
	}
	if got := install(); len(got) != len(wanted) {
		t.Errorf("%d definitions were sent, want %d", len(got), len(wanted))
	}
	if got := install(); len(got) != 0 {
		t.Errorf("what was there was sent again: %v", got)
	}
	one := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + wanted[0].GetName()
	s.Delete(one)
	if got := install(); len(got) != 1 || !strings.HasSuffix(got[0], wanted[0].GetName()) {
		t.Errorf("one was missing, and these were sent: %v", got)
	}
}

func TestDefinitionsHaveTheVersionsThatFluxServes(t *testing.T) {
	wanted := map[string]string{
		"gitrepositories.source.toolkit.fluxcd.io": "v1", "ocirepositories.source.toolkit.fluxcd.io": "v1", "buckets.source.toolkit.fluxcd.io": "v1",
		"helmrepositories.source.toolkit.fluxcd.io": "v1", "helmcharts.source.toolkit.fluxcd.io": "v1", "externalartifacts.source.toolkit.fluxcd.io": "v1",
		"kustomizations.kustomize.toolkit.fluxcd.io": "v1", "helmreleases.helm.toolkit.fluxcd.io": "v2",
		"receivers.notification.toolkit.fluxcd.io": "v1", "providers.notification.toolkit.fluxcd.io": "v1beta3", "alerts.notification.toolkit.fluxcd.io": "v1beta3",
	}
	all, err := crds.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		spec := u.Object["spec"].(map[string]any)
		versions := spec["versions"].([]any)
		if len(versions) != 1 || versions[0].(map[string]any)["name"] != wanted[u.GetName()] {
			t.Errorf("%s has versions %v, want %s", u.GetName(), len(versions), wanted[u.GetName()])
		}
		delete(wanted, u.GetName())
	}
	if len(wanted) > 0 {
		t.Errorf("missing: %v", wanted)
	}
}
