package reconciler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/fakeapi"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

const patience = 20 * time.Second

// machine is a node's reconciler on a real repository and a fake API server.
type machine struct {
	*gittest.Repo
	t        *testing.T
	api      *fakeapi.Server
	cfg      reconciler.Config
	rec      *reconciler.Reconciler
	stop     func()
	alice    *gittest.Key
	validate func(*reconciler.Snapshot) error
}

const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: default\ndata:\n  k: %q\n"

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, alice: gittest.SSHKey(t, "alice"), Repo: gittest.NewRepo(t), api: fakeapi.New(t)}
	m.Root(1, "", m.alice)
	m.Write("clusters/default/cluster.yaml", "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: x\n")
	for _, name := range []string{"a", "b", "c"} {
		m.Write("clusters/default/"+name+".yaml", fmt.Sprintf(manifest, name, "1"))
	}
	m.Commit(m.alice, "first")
	root, err := v1alpha1.DecodeTrustRoot("boot", []byte(gittest.RootYAML(1, "", m.alice)))
	if err != nil {
		t.Fatal(err)
	}
	boot := &v1alpha1.BootConfig{
		Repository: v1alpha1.RepositorySpec{URL: "file://" + m.Dir, Branch: "main", Path: "clusters/default", Interval: v1alpha1.Duration{Duration: time.Hour}},
		Trust:      v1alpha1.BootTrust{Root: root},
	}
	m.cfg = reconciler.Config{
		StateDir: t.TempDir(), Boot: boot, Kubeconfig: m.api.Kubeconfig(t), Log: slog.New(slog.DiscardHandler),
		Validate: func(_ context.Context, s *reconciler.Snapshot) error {
			if m.validate != nil {
				return m.validate(s)
			}
			_, err := v1alpha1.DecodeCluster(s.Cluster.Path, s.Cluster.Data)
			return err
		},
	}
	t.Cleanup(func() { m.kill() })
	return m
}

// start runs the components as the agent does.
func (m *machine) start() {
	m.t.Helper()
	var err error
	if m.rec, err = reconciler.New(m.cfg); err != nil {
		m.t.Fatal(err)
	}
	sup, err := supervise.New(slog.New(slog.DiscardHandler), m.rec.Components()...)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); sup.Run(ctx) }()
	m.stop = func() { cancel(); <-done }
}

func (m *machine) kill() {
	if m.stop != nil {
		m.stop()
		m.stop = nil
	}
}

// until waits for a status.
func (m *machine) until(what string, ok func(reconciler.Status) bool) reconciler.Status {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		changed := m.rec.Changed()
		s := m.rec.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			text, _ := json.MarshalIndent(s, "", "  ")
			m.t.Fatalf("waited %s for %s; the status is\n%s", patience, what, text)
		}
	}
}

func (m *machine) untilReady() reconciler.Status {
	m.t.Helper()
	head := m.Head()
	return m.until("commit "+head+" to be ready", func(s reconciler.Status) bool {
		return s.Phase == reconciler.PhaseReady && s.Applied != nil && s.Applied.Commit == head && s.Accepted.Commit == head
	})
}

func (m *machine) reconcile() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.rec.Reconcile(ctx)
}

func (m *machine) value(name string) string {
	o := m.api.Get("/api/v1/namespaces/default/configmaps/" + name)
	if o == nil {
		return ""
	}
	return o["data"].(map[string]any)["k"].(string)
}

// TestFromGitToCluster is the whole path: first boot, a change, a refusal, a
// deletion.
func TestFromGitToCluster(t *testing.T) {
	m := newMachine(t)
	m.start()
	s := m.untilReady()
	if s.Accepted.Signer != "alice" || s.Accepted.Kind != "ssh" || !strings.HasPrefix(s.Accepted.Fingerprint, "SHA256:") || s.Objects.Total != 3 || s.Objects.Ready != 3 || s.Source.LastFetch == nil {
		t.Fatalf("status %+v", s)
	}
	if m.value("a") != "1" {
		t.Fatal("nothing was applied")
	}

	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "2"))
	m.Commit(m.alice, "change a")
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
	good := m.Head()
	if m.value("a") != "2" {
		t.Error("the change was not applied")
	}

	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "evil"))
	m.Commit(nil, "unsigned")
	var refusal *acceptance.Refusal
	if err := m.reconcile(); !errors.As(err, &refusal) || refusal.Rule != acceptance.RuleSignature || refusal.Commit != m.Head() || refusal.Remedy == "" {
		t.Fatalf("unsigned commit: %v", err)
	}
	s = m.rec.Status()
	if m.value("a") != "2" || s.Accepted.Commit != good || s.Rejected == nil || s.Rejected.Subject != "unsigned" || s.Phase != reconciler.PhaseReady {
		t.Errorf("an unsigned commit changed something: %+v", s)
	}

	m.Git("reset", "-q", "--hard", good)
	m.Remove("clusters/default/b.yaml")
	m.Commit(m.alice, "remove b")
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
	s = m.rec.Status()
	if m.value("b") != "" || s.LastPruned == nil || len(s.LastPruned.Objects) != 1 || s.Rejected != nil {
		t.Errorf("b was not pruned: %+v", s.LastPruned)
	}
}

func TestMalformedClusterChangesNothing(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	good := m.Head()
	m.Write("clusters/default/cluster.yaml", "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: x\nspec:\n  netwrk: {}\n")
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "2"))
	m.Commit(m.alice, "typo")
	var refusal *acceptance.Refusal
	if err := m.reconcile(); !errors.As(err, &refusal) || refusal.Rule != acceptance.RuleCluster || !strings.Contains(refusal.Problem, "clusters/default/cluster.yaml:6: spec.netwrk: unknown field") {
		t.Fatalf("error %v", err)
	}
	if m.value("a") != "1" || m.rec.Status().Accepted.Commit != good {
		t.Error("a malformed commit changed something")
	}
	m.kill()
	m.start()
	m.until("the site to go on", func(s reconciler.Status) bool { return s.Accepted != nil && s.Rejected != nil })
	if snap, _ := m.rec.Accepted(); snap.Commit != good {
		t.Errorf("after a restart the site runs %s", snap.Commit)
	}
}

func TestRestartGoesOnWithoutRepository(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.kill()
	if err := os.Rename(m.Dir, m.Dir+".gone"); err != nil {
		t.Fatal(err)
	}
	m.start()
	s := m.until("the site to run without its repository", func(s reconciler.Status) bool {
		return s.Phase == reconciler.PhaseReady && s.Source.UnreachableSince != nil
	})
	if s.Accepted.Signer != "alice" || !strings.Contains(s.Source.LastError, m.Dir) {
		t.Errorf("status %+v", s)
	}
	snap, _ := m.rec.Accepted()
	if snap.TrustRoot == nil || snap.Cluster == nil || len(snap.Cluster.Data) == 0 {
		t.Errorf("snapshot %+v", snap)
	}
	// It comes back.
	if err := os.Rename(m.Dir+".gone", m.Dir); err != nil {
		t.Fatal(err)
	}
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
	if s := m.rec.Status(); s.Source.UnreachableSince != nil || s.Source.LastError != "" {
		t.Errorf("still unreachable: %+v", s.Source)
	}
}

func TestFirstBootWithoutRepository(t *testing.T) {
	m := newMachine(t)
	if err := os.Rename(m.Dir, m.Dir+".gone"); err != nil {
		t.Fatal(err)
	}
	m.start()
	s := m.until("an error", func(s reconciler.Status) bool { return s.Source.LastError != "" })
	if s.Phase != reconciler.PhaseFetching || !strings.Contains(s.Message, "file://"+m.Dir) || !strings.Contains(s.Message, "boot configuration") {
		t.Errorf("status %+v", s)
	}
	if snap, _ := m.rec.Accepted(); snap != nil {
		t.Error("something was accepted")
	}
	if err := os.Rename(m.Dir+".gone", m.Dir); err != nil {
		t.Fatal(err)
	}
	m.untilReady() // by its own retries
}

// TestDamagedMirror truncates the mirror's pack, as a power cut can.
func TestDamagedMirror(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.kill()
	packs, err := filepath.Glob(filepath.Join(m.cfg.StateDir, "git", "objects", "pack", "*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatal("no pack to damage")
	}
	for _, pack := range packs {
		if err := os.Truncate(pack, 40); err != nil {
			t.Fatal(err)
		}
	}
	m.start()
	s := m.untilReady()
	healed := false
	for _, e := range s.Events {
		healed = healed || e.Reason == "MirrorDamaged"
	}
	if !healed {
		t.Errorf("nobody was told: %+v", s.Events)
	}
	// The record survived: history cannot be rewritten behind the damage.
	m.Git("checkout", "-q", "--orphan", "other")
	m.Commit(m.alice, "another history")
	m.Git("branch", "-M", "main")
	var refusal *acceptance.Refusal
	if err := m.reconcile(); !errors.As(err, &refusal) || refusal.Rule != acceptance.RuleDescent {
		t.Errorf("error %v", err)
	}
}

func TestDamagedRecordIsNotAFirstBoot(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.kill()
	if err := os.WriteFile(filepath.Join(m.cfg.StateDir, "trust", "accepted.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, err := reconciler.New(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = rec.Components()[0].Run(ctx, func() { t.Error("became ready") })
	if err == nil || !strings.Contains(err.Error(), "restore the file") {
		t.Fatalf("error %v", err)
	}
}

// TestCrashBetweenRecordAndApply has the API server away while a commit is
// accepted, and the process killed.
func TestCrashBetweenRecordAndApply(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.api.Down(true)
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "2"))
	m.Remove("clusters/default/b.yaml")
	head := m.Commit(m.alice, "change")
	m.rec.Trigger()
	m.until("the commit to be accepted", func(s reconciler.Status) bool {
		return s.Accepted.Commit == head && s.Phase == reconciler.PhaseWaitAPI
	})
	m.kill()
	m.api.Down(false)
	m.start()
	m.untilReady()
	if m.value("a") != "2" || m.value("b") != "" {
		t.Error("the accepted commit was not applied after the restart")
	}
}

// TestKillAtAnyMoment stops the machine at many points of taking a commit in.
func TestKillAtAnyMoment(t *testing.T) {
	m := newMachine(t)
	for i := range 8 {
		m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", fmt.Sprint(i)))
		m.Commit(m.alice, fmt.Sprint("change ", i))
		m.start()
		for range i { // a different number of status changes each time
			select {
			case <-m.rec.Changed():
			case <-time.After(patience):
			}
			if m.rec.Status().Phase == reconciler.PhaseReady {
				break
			}
		}
		m.kill()
	}
	m.start()
	m.untilReady()
	if m.value("a") != "7" {
		t.Errorf("a is %q", m.value("a"))
	}
}

func TestNewerCommitPreemptsWaiting(t *testing.T) {
	m := newMachine(t)
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: default}\nspec: {replicas: %d}\n"
	m.api.SetReady("d", false)
	m.Write("clusters/default/d.yaml", fmt.Sprintf(deployment, 1))
	m.Commit(m.alice, "never healthy")
	m.start()
	m.until("the wait for health", func(s reconciler.Status) bool {
		return s.Phase == reconciler.PhaseWaitReady && len(s.Objects.Pending) == 1 && s.Objects.Ready == 3
	})
	m.Remove("clusters/default/d.yaml")
	m.Commit(m.alice, "fix")
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
}

func TestUnhealthyIsDegraded(t *testing.T) {
	m := newMachine(t)
	m.cfg.HealthTimeout = 300 * time.Millisecond
	m.api.SetReady("d", false)
	m.Write("clusters/default/d.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: default}\nspec: {replicas: 1}\n")
	m.Commit(m.alice, "never healthy")
	m.start()
	s := m.until("the time-out", func(s reconciler.Status) bool { return s.Phase == reconciler.PhaseDegraded })
	if !strings.Contains(s.Message, "Deployment default/d") {
		t.Errorf("message %q", s.Message)
	}
	m.api.SetReady("d", true)
	m.rec.Trigger()
	m.untilReady()
}

func TestBuildErrorKeepsWhatRuns(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.Write("clusters/default/a.yaml", "apiVersion: v1\nkind: ConfigMap\n")
	m.Commit(m.alice, "half an object")
	err := m.reconcile()
	if err == nil || !strings.Contains(err.Error(), "clusters/default/a.yaml") {
		t.Fatalf("error %v", err)
	}
	if m.value("a") != "1" || m.value("b") != "1" {
		t.Error("a commit that cannot be built changed something")
	}
}

func TestLargePruneNeedsTrailer(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.Remove("clusters/default/b.yaml", "clusters/default/c.yaml")
	m.Commit(m.alice, "remove most")
	if err := m.reconcile(); err == nil || !strings.Contains(err.Error(), "Bothy-Allow-Prune") {
		t.Fatalf("error %v", err)
	}
	if m.value("b") == "" || m.value("c") == "" {
		t.Fatal("deleted without being allowed")
	}
	m.Commit(m.alice, "yes, I mean it\n\nBothy-Allow-Prune: true")
	if err := m.reconcile(); err != nil {
		t.Fatal(err)
	}
	if m.value("a") == "" || m.value("b") != "" || m.value("c") != "" {
		t.Error("not pruned")
	}
}

func TestLinksAndSubmodulesInTheSite(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	good := m.Head()
	for name, spoil := range map[string]func(){
		"symbolic link": func() { m.Link("clusters/default/passwd.yaml", "/etc/passwd") },
		"submodule":     func() { m.Git("update-index", "--add", "--cacheinfo", "160000,"+good+",clusters/default/sub") },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			m.Commit(m.alice, name)
			var refusal *acceptance.Refusal
			if err := m.reconcile(); !errors.As(err, &refusal) || refusal.Rule != acceptance.RuleTree || !strings.Contains(refusal.Problem, name) {
				t.Errorf("error %v", err)
			}
			m.Git("reset", "-q", "--hard", good)
		})
	}
	t.Run("link elsewhere is harmless", func(t *testing.T) {
		m.Link("docs/link", "/etc/passwd")
		m.Commit(m.alice, "a link nobody follows")
		if err := m.reconcile(); err != nil {
			t.Error(err)
		}
	})
}

func TestTrustNoneSaysSo(t *testing.T) {
	m := newMachine(t)
	m.cfg.Boot.Trust = v1alpha1.BootTrust{None: true}
	m.Commit(nil, "unsigned")
	m.start()
	s := m.untilReady()
	if !s.Source.TrustNone || s.Accepted.Signer != "" {
		t.Errorf("status %+v", s)
	}
}

func TestNewRefusesToRunWithoutTrust(t *testing.T) {
	_, err := reconciler.New(reconciler.Config{StateDir: t.TempDir(), Boot: &v1alpha1.BootConfig{Repository: v1alpha1.RepositorySpec{URL: "/x", Path: "y"}}})
	if err == nil || !strings.Contains(err.Error(), "no trust root is configured") {
		t.Fatalf("error %v", err)
	}
}

func TestOversizedBlobIsNotFetched(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.untilReady()
	m.kill()
	m.cfg.Limits = mirror.Limits{Object: 100_000}
	m.Write("big", strings.Repeat("x", 200_000))
	m.Commit(m.alice, "big")
	m.start()
	s := m.until("the error", func(s reconciler.Status) bool { return s.Source.LastError != "" })
	if !strings.Contains(s.Source.LastError, "too large") || !strings.Contains(s.Source.LastError, "200000 bytes") {
		t.Errorf("error %s", s.Source.LastError)
	}
}

func TestRefusedCommitIsJudgedOnce(t *testing.T) {
	m := newMachine(t)
	judged := 0
	m.validate = func(s *reconciler.Snapshot) error {
		judged++
		return errors.New("no")
	}
	m.cfg.Boot.Repository.Interval = v1alpha1.Duration{Duration: 10 * time.Millisecond}
	m.start()
	s := m.until("the refusal", func(s reconciler.Status) bool { return s.Rejected != nil })
	since := *s.Source.LastFetch
	m.until("more polls", func(s reconciler.Status) bool { return s.Source.LastFetch.Sub(since) > 200*time.Millisecond })
	m.kill()
	if judged != 1 {
		t.Errorf("judged %d times", judged)
	}
}
