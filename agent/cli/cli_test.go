package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
)

// run executes a command line and returns its standard output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestUpRefusesBeforeItTouchesAnything(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root that is what is refused")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root.yaml")
	if err := os.WriteFile(root, []byte("apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\nversion: 1\nsigner: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	for want, args := range map[string][]string{
		"no repository":                        nil,
		"no trust root":                        {"--repo", "file:///x.git"},
		"root.yaml:4: signer: unknown field":   {"--repo", "file:///x.git", "--trust-root", root},
		"plain http is not accepted":           {"--repo", "http://h/x.git", "--trust-none"},
		"no-such.tar":                          {"--bundle", filepath.Join(dir, "no-such.tar"), "--trust-none"},
		"no trust root: say who":               {"--bundle", filepath.Join(dir, "no-such.tar")},
		"is not an OCI layout":                 {"--repo", "file:///x.git", "--trust-none", "--images", dir},
		"were all set":                         {"--repo", "file:///x.git", "--trust-none", "--trust-root", root},
		"use text or json":                     {"-o", "yaml"},
		`"../up" is not a clean relative path`: {"--repo", "file:///x.git", "--trust-none", "--path", "../up"},
	} {
		_, err := run(t, append([]string{"up", "--state", state}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("a refused start made the state directory")
	}
}

func TestCommandsWithoutANodeSayHowToGetOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root that is what is refused")
	}
	state := filepath.Join(t.TempDir(), "none")
	for _, c := range []string{"status", "events", "kubeconfig", "reconcile"} {
		if _, err := run(t, c, "--state", state); err == nil || !strings.Contains(err.Error(), "bothy up") {
			t.Errorf("%s: %v", c, err)
		}
	}
	if out, err := run(t, "down", "--state", state); err != nil || !strings.Contains(out, "there is no node") {
		t.Errorf("down: %q %v", out, err)
	}
}

func TestLogsMergeAndFilter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"agent.log": `{"time":"2026-01-01T00:00:02Z","level":"INFO","msg":"second","process":"agent","wing":"reconciler"}` + "\n",
		"kube.log":  `{"time":"2026-01-01T00:00:01Z","level":"ERROR","msg":"first","process":"kube","component":"etcd","err":"no"}` + "\n" + `{"time":"2026-01-01T00:00:03Z","level":"INFO","msg":"third","process":"kube"}` + "\n" + `{"half`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"": "first second third", "etcd": "first", "reconciler": "second", "kube": "first third", "--tail=1": "third",
	} {
		line := []string{"logs", "--state", filepath.Dir(dir)}
		if args != "" {
			line = append(line, args)
		}
		out, err := run(t, line...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, word := range strings.Fields(out) {
			if word == "first" || word == "second" || word == "third" {
				got = append(got, word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("logs %s: got %v, want %s", args, got, want)
		}
	}
	if _, err := run(t, "logs", "--state", t.TempDir()); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("no logs: %v", err)
	}
}

func TestProgressTellsEachThingOnce(t *testing.T) {
	p := &progress{said: map[string]string{}, started: time.Now()}
	st := &agent.Status{Components: []agent.ComponentStatus{{Process: "kube", Status: supervise.Status{Name: "etcd", State: supervise.Starting}}}}
	if news := p.news(st); len(news) != 0 {
		t.Errorf("%v", news)
	}
	st.Components[0].State = supervise.Ready
	st.Git.Accepted = &reconciler.AcceptedStatus{Commit: "0123456789abcdef", Signer: "alice"}
	if news := strings.Join(p.news(st), "\n"); news != "etcd ready\ncommit 0123456789ab accepted, signed by alice" {
		t.Errorf("%q", news)
	}
	if news := p.news(st); len(news) != 0 {
		t.Errorf("said again: %v", news)
	}
	st.Components[0].State, st.Components[0].LastError = supervise.Backoff, "disk full"
	if news := p.news(st); len(news) != 1 || news[0] != "etcd failed: disk full" {
		t.Errorf("%v", news)
	}
}

func TestCutCountsWhatIsSeen(t *testing.T) {
	s := style{on: true}
	if got := cut(s.good("abcdef"), 3); got != "\x1b[32mabc" {
		t.Errorf("%q", got)
	}
	if got := cut("äöü", 5); got != "äöü" {
		t.Errorf("%q", got)
	}
}

func TestHelpIsComplete(t *testing.T) {
	root := newRoot()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		if c.Short == "" {
			t.Errorf("%s has no summary", c.Name())
		}
	}
	dir := t.TempDir()
	if _, err := run(t, "man", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "bothy-repo-init.1")); err != nil {
		t.Error(err)
	}
	out, err := run(t, "version", "-o", "json")
	if err != nil || !strings.Contains(out, `"kubernetes"`) {
		t.Errorf("%q %v", out, err)
	}
}
