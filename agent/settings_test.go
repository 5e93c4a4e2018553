package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/settings"
	"github.com/bothy-os/bothy/reconciler"
)

func TestSettingsOfTheMachineRestartNothing(t *testing.T) {
	decode := func(system string) *site {
		t.Helper()
		s, err := decodeSite(&reconciler.Snapshot{
			Cluster:  &reconciler.File{Path: "c.yaml", Data: []byte(strings.Replace(clusterText, "}}", "}, system: {"+system+"}}", 1))},
			Machines: []reconciler.File{{Path: "m.yaml", Data: []byte("apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: a}\nspec: {system: {hostname: shelf, " + system + "}}\n")}},
		}, "clusters/edge", "a")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, other := decode(`dns: [192.0.2.1]`), decode(`dns: [192.0.2.2]`)
	if !one.equal(other) {
		t.Error("another DNS server restarts Kubernetes")
	}
	if one.system.Hostname != "shelf" || settings.Hash(&one.system) == settings.Hash(&other.system) {
		t.Errorf("%+v", one.system)
	}
}

// script is a keeper that remembers what it is asked.
type script struct {
	status   settings.Status
	proposed []settings.Proposal
	confirm  []string
}

func (*script) Run(context.Context) error { return nil }

func (s *script) Status() (*settings.Status, <-chan struct{}) { return &s.status, nil }

func (s *script) Propose(_ context.Context, p settings.Proposal) { s.proposed = append(s.proposed, p) }

func (s *script) Confirm(_ context.Context, hash string) { s.confirm = append(s.confirm, hash) }
func (*script) Forget(context.Context)                   {}

func TestSettingsAreProposedProvedAndMarked(t *testing.T) {
	dir := t.TempDir()
	r, err := reconciler.New(reconciler.Config{StateDir: dir, Boot: &v1alpha1.BootConfig{
		Repository: v1alpha1.RepositorySpec{URL: "file:///nowhere", Path: "x"}, Trust: v1alpha1.BootTrust{None: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	k := &script{}
	f := &settingsFollower{hall: &hall{reconciler: r, env: &boot.Environment{Name: "n"}, paths: paths.Paths{StateDir: dir, RunDir: dir}}, keeper: k, since: time.Now()}
	want := &settings.Settings{Hostname: "shelf"}
	want.RevertAfter.Duration = time.Minute
	var good time.Time
	step := func() time.Duration { return f.step(t.Context(), &k.status, "c1", want, &good) }

	// A machine that starts has no API yet: nothing could be blamed for that.
	if again := step(); again == 0 || len(k.proposed) > 0 {
		t.Fatalf("%v, again after %s", k.proposed, again)
	}
	f.since = time.Now().Add(-time.Hour)
	if step(); len(k.proposed) != 1 || slices.Contains(k.proposed[0].Needs, needAPI) || k.proposed[0].Commit != "c1" {
		t.Fatalf("%+v", k.proposed)
	}

	// What it needs does not work.
	k.status.Trial = &settings.Trial{Settings: *want, Commit: "c1", Needs: []string{needAPI}, Began: time.Now(), Applied: true}
	if again := step(); again == 0 || len(k.confirm) > 0 || !good.IsZero() {
		t.Fatalf("%v, again after %s", k.confirm, again)
	}
	// It does, but not for long yet; then it has.
	k.status.Trial.Needs = nil
	if step(); len(k.confirm) > 0 || good.IsZero() {
		t.Fatalf("%v", k.confirm)
	}
	good = time.Now().Add(-steady)
	if step(); len(k.confirm) != 1 || k.confirm[0] != settings.Hash(want) {
		t.Fatalf("%v", k.confirm)
	}

	// It was undone: the commit says so, and it is not proposed again.
	k.status.Trial, k.proposed = nil, nil
	k.status.Undone = &settings.Undone{Hash: settings.Hash(want), Commit: "c1", Reason: "the switch is on fire"}
	if again := step(); again != 0 || len(k.proposed) > 0 {
		t.Fatalf("%v, again after %s", k.proposed, again)
	}
	st := r.Status()
	if len(st.Machine) != 1 || st.Machine[0].Commit != "c1" || !strings.Contains(st.Machine[0].Message, "the switch is on fire") || len(st.Events) != 1 || !st.Events[0].Warning {
		t.Errorf("%+v %+v", st.Machine, st.Events)
	}
	// Other settings are another matter, and clear the mark.
	want.Hostname = "rack"
	if step(); len(k.proposed) != 1 || len(r.Status().Machine) != 0 {
		t.Errorf("%+v %+v", k.proposed, r.Status().Machine)
	}
}

func TestWhatHasNoEffectOnOthersMachinesIsListed(t *testing.T) {
	s := &settings.Settings{Hostname: "x", Disks: []v1alpha1.DiskSpec{{Name: "d"}}}
	s.Sysctls = map[string]string{"vm/swappiness": "10", "net/ipv4/tcp_keepalive_time": "60", "kernel/shmmax": "1"}
	s.Modules = []string{"nbd"}
	if got, want := ignoredInNode(s), []string{"sysctl vm.swappiness", "modules", "hostname", "disks"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
