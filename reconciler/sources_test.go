package reconciler_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gitliar"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// change commits a new value of a, signed, and returns the commit.
func (m *machine) change(value string) string {
	m.t.Helper()
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", value))
	return m.Commit(m.alice, "a is "+value)
}

// untilValue waits for a to have a value in the cluster.
func (m *machine) untilValue(want string) {
	m.t.Helper()
	m.until("a to be "+want, func(s reconciler.Status) bool {
		return s.Phase == reconciler.PhaseReady && m.value("a") == want
	})
}

func events(s reconciler.Status, reason string) (out []reconciler.Event) {
	for _, e := range s.Events {
		if e.Reason == reason {
			out = append(out, e)
		}
	}
	return out
}

// TestLyingServer lets the Git server fail in every way: the last good state
// stays, status says what is wrong and what to do, and the site goes on by
// itself when the server is right again.
func TestLyingServer(t *testing.T) {
	m := newMachine(t)
	server := gitliar.New(t, m.Dir, false)
	m.cfg.Boot.Repository.URL = server.Repository
	m.cfg.Limits = mirror.Limits{Stall: time.Second, Fetch: 2 << 20, Object: 1 << 20, Objects: 16 << 20}
	m.start()
	m.untilReady()
	for i, lie := range gitliar.All() {
		t.Run(string(lie), func(t *testing.T) {
			good, _ := m.rec.Accepted()
			before := m.value("a")
			value := fmt.Sprint("after ", lie)
			server.Tell(lie)
			want := m.change(value)
			err := m.reconcile()
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			s := m.rec.Status()
			now, _ := m.rec.Accepted()
			if now.Commit != good.Commit || m.value("a") != before || s.Phase != reconciler.PhaseReady || s.Rejected != nil {
				t.Errorf("the good state is gone: %+v", s)
			}
			told := events(s, "RepositoryUnreachable")
			if len(told) != i+1 || !told[i].Warning || !strings.Contains(told[i].Message, "keeps running from its mirror") || s.Source.UnreachableSince == nil || !strings.Contains(s.Source.LastError, server.Repository) {
				t.Errorf("%d events, last error %q", len(told), s.Source.LastError)
			}
			if src := s.Source.Sources; len(src) != 1 || src[0].State != reconciler.SourceUnreachable || src[0].LastError == "" {
				t.Errorf("sources %+v", src)
			}
			server.Tell(gitliar.None)
			m.untilValue(value)
			s = m.until("the source to be current", func(s reconciler.Status) bool {
				return s.Source.Sources[0].State == reconciler.SourceCurrent
			})
			if s.Accepted.Commit != want || s.Source.LastError != "" || s.Source.UnreachableSince != nil || len(events(s, "RepositoryReachable")) != i+1 {
				t.Errorf("it did not recover: %+v", s.Source)
			}
			if len(events(s, "MirrorDamaged")) > 0 {
				t.Error("a lie was taken for damage")
			}
		})
	}
}

// TestServerDown has no server at all for a while.
func TestServerDown(t *testing.T) {
	m := newMachine(t)
	away := m.Dir + ".away"
	m.start()
	m.untilReady()
	if err := os.Rename(m.Dir, away); err != nil {
		t.Fatal(err)
	}
	if err := m.reconcile(); err == nil || !strings.Contains(err.Error(), "check repository.url") {
		t.Errorf("error %v", err)
	}
	// A restart without the server: the mirror is enough.
	m.kill()
	m.start()
	m.untilValue("1")
	if err := os.Rename(away, m.Dir); err != nil {
		t.Fatal(err)
	}
	m.change("2")
	m.untilValue("2")
}

// clone makes a bare copy of the repository, which moves only when it is told.
func (m *machine) clone() (dir string, update func()) {
	m.t.Helper()
	dir = filepath.Join(m.t.TempDir(), "copy.git")
	m.Git("clone", "-q", "--bare", m.Dir, dir)
	return dir, func() { m.Git("push", "-q", "--force", dir, "main") }
}

func (m *machine) states(want ...reconciler.SourceState) func(reconciler.Status) bool {
	return func(s reconciler.Status) bool {
		for i, w := range want {
			if len(s.Source.Sources) <= i || s.Source.Sources[i].State != w {
				return false
			}
		}
		return true
	}
}

// TestSeveralSources takes each commit from the first place that has an
// acceptable new one.
func TestSeveralSources(t *testing.T) {
	m := newMachine(t)
	first, updateFirst := m.clone()
	second, updateSecond := m.clone()
	m.cfg.Boot.Repository.URL = ""
	m.cfg.Boot.Repository.Sources = []v1alpha1.RepositorySource{{URL: first}, {URL: second}}
	m.start()
	m.untilReady()
	if s := m.rec.Status(); s.Source.URL != first || s.Source.Sources[1].State != "" {
		t.Errorf("the second source was asked without need: %+v", s.Source)
	}
	step := func(what string, want ...reconciler.SourceState) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.rec.Reconcile(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		m.until(what, m.states(want...))
	}

	// The first is gone; the second delivers.
	if err := os.Rename(first, first+".away"); err != nil {
		t.Fatal(err)
	}
	m.change("2")
	updateSecond()
	step("the second to deliver", reconciler.SourceUnreachable, reconciler.SourceCurrent)
	m.untilValue("2")

	// The first is back with what it had: it is behind, which is no rollback.
	if err := os.Rename(first+".away", first); err != nil {
		t.Fatal(err)
	}
	step("the first to be behind", reconciler.SourceBehind, reconciler.SourceCurrent)
	if s := m.rec.Status(); s.Rejected != nil || m.value("a") != "2" {
		t.Errorf("rolled back: %+v", s)
	}

	// It catches up and goes ahead, and is used again.
	m.change("3")
	updateFirst()
	step("the first to deliver", reconciler.SourceCurrent)
	m.untilValue("3")

	// What it has is refused; the second has something better.
	m.change("4")
	updateSecond()
	good := m.Head()
	m.Git("checkout", "-q", "-b", "evil", "HEAD~1")
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "evil"))
	m.Commit(nil, "unsigned")
	m.Git("push", "-q", "--force", first, "evil:main")
	m.Git("checkout", "-q", "main")
	step("the second to deliver what is acceptable", reconciler.SourceRefused, reconciler.SourceCurrent)
	m.untilValue("4")
	s := m.rec.Status()
	if s.Accepted.Commit != good || len(events(s, "Refused")) == 0 {
		t.Errorf("accepted %s, events %+v", s.Accepted.Commit, events(s, "Refused"))
	}

	// A source that delivered and goes back is not behind: that is a rollback.
	m.Git("push", "-q", "--force", second, "main~1:main")
	var refusal *acceptance.Refusal
	if err := m.reconcile(); !errors.As(err, &refusal) || refusal.Rule == "" {
		t.Errorf("a rollback: %v", err)
	}
	if m.value("a") != "4" {
		t.Error("rolled back")
	}
}

// TestBundle brings commits on a medium.
func TestBundle(t *testing.T) {
	m := newMachine(t)
	media := t.TempDir()
	bundle := func(name, commits string, options ...string) {
		t.Helper()
		tmp := filepath.Join(t.TempDir(), "bundle")
		m.Git(append(append([]string{"bundle", "create", "-q"}, options...), tmp, commits)...)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(media, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(tmp)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(media, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.cfg.Boot.Repository.URL = "bundle://" + media + "/*/site*.bundle"
	m.start()
	s := m.until("no bundle to be there", m.states(reconciler.SourceUnreachable))
	if told := events(s, "RepositoryUnreachable"); len(told) != 1 || told[0].Warning || !strings.Contains(s.Source.LastError, "plug in the medium") {
		t.Errorf("events %+v, last error %q", told, s.Source.LastError)
	}
	// It appears, and is picked up though the interval is an hour.
	bundle("stick/site.bundle", "main")
	m.untilValue("1")
	first := m.Head()

	// Increments, in both versions of the format.
	m.change("2")
	bundle("stick/site-2.bundle", first+"..main")
	m.untilValue("2")
	second := m.Head()
	m.change("3")
	bundle("other/site.bundle", second+"..main", "--version=3")
	m.untilValue("3")

	// The newest file is not acceptable, an older one is.
	m.change("4")
	bundle("other/site-4.bundle", second+"..main")
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "evil"))
	m.Commit(nil, "unsigned")
	bundle("other/site-5.bundle", second+"..main")
	m.untilValue("4")

	// One that builds on what is not here says so.
	m.Git("reset", "-q", "--hard", "HEAD~1")
	m.change("5")
	m.change("6")
	if err := os.RemoveAll(media + "/other"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(media + "/stick"); err != nil {
		t.Fatal(err)
	}
	bundle("stick/site.bundle", "main~1..main")
	m.until("the gap to be told", func(s reconciler.Status) bool {
		return strings.Contains(s.Source.LastError, "builds on commit") && strings.Contains(s.Source.LastError, "git bundle create")
	})
	if m.value("a") != "4" {
		t.Error("something was applied")
	}
}

// TestCarriedBundle brings commits to a site that has lost its server, in the
// directory that becomes a source once it is there.
func TestCarriedBundle(t *testing.T) {
	m := newMachine(t)
	m.cfg.Bundles = filepath.Join(t.TempDir(), "carried")
	url := m.Dir + ".served"
	m.Git("clone", "-q", "--bare", m.Dir, url)
	m.cfg.Boot.Repository.URL = "file://" + url
	m.start()
	m.untilValue("1")
	if s := m.rec.Status(); len(s.Source.Sources) != 1 {
		t.Errorf("a directory that is not there is a source: %+v", s.Source.Sources)
	}
	if err := os.RemoveAll(url); err != nil {
		t.Fatal(err)
	}
	first := m.Head()
	m.change("2")
	if err := os.MkdirAll(m.cfg.Bundles, 0o755); err != nil {
		t.Fatal(err)
	}
	m.Git("bundle", "create", "-q", filepath.Join(m.cfg.Bundles, "2.bundle"), first+"..main")
	_ = m.reconcile() // it says that the server is away
	m.untilValue("2")
	// The next is seen by itself, and held to the rules.
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "evil"))
	m.Commit(nil, "unsigned")
	m.Git("bundle", "create", "-q", filepath.Join(m.cfg.Bundles, "3.bundle"), first+"..main")
	m.until("the unsigned commit to be refused", func(s reconciler.Status) bool {
		return slices.ContainsFunc(s.Events, func(e reconciler.Event) bool {
			return e.Commit == m.Head() && e.Warning && strings.Contains(e.Message, "not signed")
		})
	})
	if m.value("a") != "2" {
		t.Errorf("a is %s", m.value("a"))
	}
}

// thinPack is what git push sends.
func (m *machine) thinPack(since, tip string) io.Reader {
	m.t.Helper()
	cmd := exec.Command("git", "-C", m.Dir, "pack-objects", "--stdout", "--thin", "--revs", "-q")
	cmd.Stdin = strings.NewReader(tip + "\n^" + since + "\n")
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.NewReader(string(out))
}

// TestPush pushes to the site, whose repository does not know about it.
func TestPush(t *testing.T) {
	m := newMachine(t)
	source, update := m.clone()
	m.cfg.Boot.Repository.URL = source
	m.start()
	m.untilReady()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first := m.Head()
	second := m.change("2")
	if err := m.rec.Push(ctx, second, m.thinPack(first, second)); err != nil {
		t.Fatal(err)
	}
	if _, commit := m.rec.Head(); commit != second {
		t.Errorf("head %s", commit)
	}
	m.untilValue("2")

	// The source is behind now, which takes nothing back.
	if err := m.reconcile(); err != nil {
		t.Error(err)
	}
	m.until("the source to be behind", m.states(reconciler.SourceBehind))
	m.untilValue("2")

	// Refused, and nobody is bothered with it later.
	m.Write("clusters/default/a.yaml", fmt.Sprintf(manifest, "a", "evil"))
	evil := m.Commit(nil, "unsigned")
	var refusal *acceptance.Refusal
	if err := m.rec.Push(ctx, evil, m.thinPack(second, evil)); !errors.As(err, &refusal) || refusal.Rule != acceptance.RuleSignature {
		t.Errorf("error %v", err)
	}
	if s := m.rec.Status(); s.Rejected != nil || s.Accepted.Commit != second {
		t.Errorf("status %+v", s)
	}
	// An old commit, one that is not there, and a damaged pack.
	if err := m.rec.Push(ctx, first, nil); !errors.As(err, &refusal) {
		t.Errorf("an old commit: %v", err)
	}
	if err := m.rec.Push(ctx, strings.Repeat("1", 40), nil); err == nil || errors.As(err, &refusal) {
		t.Errorf("a commit without objects: %v", err)
	}
	m.Git("reset", "-q", "--hard", second)
	third := m.change("3")
	if err := m.rec.Push(ctx, third, io.LimitReader(m.thinPack(second, third), 100)); err == nil || errors.As(err, &refusal) {
		t.Errorf("half a pack: %v", err)
	}

	// The source catches up and goes on from there.
	update()
	if err := m.reconcile(); err != nil {
		t.Error(err)
	}
	m.untilValue("3")

	// After a restart the pushed commit is what the site goes on with.
	fourth := m.change("4")
	if err := m.rec.Push(ctx, fourth, m.thinPack(third, fourth)); err != nil {
		t.Fatal(err)
	}
	m.kill()
	m.start()
	m.untilValue("4")
	m.until("the source to be behind", m.states(reconciler.SourceBehind))
}

// TestPushDuringFetch does not wait for a server that says nothing.
func TestPushDuringFetch(t *testing.T) {
	m := newMachine(t)
	server := gitliar.New(t, m.Dir, false)
	m.cfg.Boot.Repository.URL = server.Repository
	m.start()
	m.untilReady()
	first := m.Head()
	second := m.change("2")
	server.Tell(gitliar.Silent)
	m.rec.Trigger()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.rec.Push(ctx, second, m.thinPack(first, second)); err != nil {
		t.Fatal(err)
	}
	m.untilValue("2")
}

// TestPushOnly is a site without any source.
func TestPushOnly(t *testing.T) {
	m := newMachine(t)
	m.cfg.Boot.Repository.URL = ""
	m.start()
	deadline := time.Now().Add(patience)
	for m.rec.Mirror() == nil && time.Now().Before(deadline) {
		<-m.rec.Changed()
	}
	cmd := exec.Command("git", "-C", m.Dir, "pack-objects", "--stdout", "--all", "-q")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.rec.Push(context.Background(), m.Head(), strings.NewReader(string(out))); err != nil {
		t.Fatal(err)
	}
	m.untilValue("1")
}

// TestDiskFullSite fills the file system of the state directory, which is one
// of the test's own: the site runs on, says so, and takes the commit when there
// is room.
func TestDiskFullSite(t *testing.T) {
	if state := os.Getenv("BOTHY_FULL_STATE"); state != "" {
		fillState(t, state)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFullSite$", "-test.v")
	cmd.Env = append(os.Environ(), "BOTHY_FULL_STATE="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EINVAL):
		t.Skipf("no user namespaces: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
}

func fillState(t *testing.T, state string) {
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	m := newMachine(t)
	m.cfg.StateDir = state
	m.start()
	m.untilReady()
	noise := make([]byte, 3_000_000)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	m.Write("unrelated", string(noise))
	m.change("2")
	if err := m.reconcile(); err == nil || !strings.Contains(err.Error(), "free space on the file system of the state directory") {
		t.Errorf("error %v", err)
	}
	if s := m.rec.Status(); s.Phase != reconciler.PhaseReady || m.value("a") != "1" || len(events(s, "RepositoryUnreachable"))+len(events(s, "CommitNotTaken")) != 1 {
		t.Errorf("status %+v", s)
	}
	if err := syscall.Mount("tmpfs", state, "tmpfs", syscall.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	m.untilValue("2")
}
