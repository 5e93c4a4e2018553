package gitserver

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Git itself sees each fault as what it is meant to be, and a good server in
// between.
func TestFaultsAsGitSeesThem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the server needs an address on the loopback link")
	}
	dir := t.TempDir()
	repository(t, dir)
	s, err := Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, s.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	clone := func(url string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "git", "clone", "--quiet", "--bare", url, filepath.Join(t.TempDir(), "clone.git"))
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_SSL_CAINFO="+ca, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		name  string
		fault Fault
		// says is in git's error; "" for a clone that does not end.
		says string
	}{
		{"down", Fault{Down: true}, "Empty reply|reset by peer|unexpected eof"},
		{"stalled", Fault{Stalled: true}, ""},
		{"slow", Fault{BytesPerSecond: 100}, ""},
		{"truncated", Fault{TruncatePack: 300}, "early EOF|unexpected disconnect|hung up|RPC failed"},
		{"corrupt", Fault{CorruptPack: true}, "pack|sideband|protocol|RPC failed"},
		{"password", Fault{Password: "secret"}, "could not read Username|Authentication failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, url := range []string{s.URL("a.git"), s.PlainURL("a.git")} {
				s.Misbehave(c.fault)
				out, err := clone(url)
				if err == nil {
					t.Fatalf("git has cloned %s", url)
				}
				if !anyOf(out, c.says) {
					t.Errorf("git says %q, which has none of %q", out, c.says)
				}
				s.Misbehave(Fault{})
				if out, err := clone(url); err != nil {
					t.Errorf("the server is well again, but git says %q: %v", out, err)
				}
			}
		})
	}
	if s.Requests() == 0 {
		t.Error("requests are not counted")
	}
}

func anyOf(text, words string) bool {
	for word := range strings.SplitSeq(words, "|") {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// repository makes a.git with enough in it for a pack of some size.
func repository(t *testing.T, dir string) {
	t.Helper()
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte(randomText()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main", tree},
		{"-C", tree, "add", "--all"},
		{"-C", tree, "commit", "--quiet", "-m", "A file"},
		{"clone", "--quiet", "--bare", tree, filepath.Join(dir, "a.git")},
	} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
}

// randomText does not compress to nothing, and is the same in every run.
func randomText() string {
	var b strings.Builder
	x := uint32(1)
	for range 20000 {
		x = x*1664525 + 1013904223
		b.WriteByte('a' + byte(x>>27)%26)
	}
	return b.String()
}
