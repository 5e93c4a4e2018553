package repository

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// history makes a repository of two commits and returns its directory.
func history(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		if _, err := program(t.Context(), dir, "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgSign=false"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "--quiet", "-b", "main")
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat(text+"\n", 100)), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "--quiet", "-m", text)
	}
	return dir
}

func bundleOf(t *testing.T, repo string, without ...string) (string, []byte) {
	t.Helper()
	c, err := Open(t.Context(), CheckoutOptions{Repository: repo})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out bytes.Buffer
	if err := c.Bundle(t.Context(), &out, without...); err != nil {
		t.Fatal(err)
	}
	if text, err := fs.ReadFile(c.Files, "file"); err != nil || !strings.HasPrefix(string(text), "two") {
		t.Errorf("the commit's file is %q, %v", text, err)
	}
	return c.Commit, out.Bytes()
}

func TestBundleIsTheSameHoweverTheRepositoryIsPacked(t *testing.T) {
	repo := history(t)
	commit, loose := bundleOf(t, repo)
	if _, err := program(t.Context(), repo, "git", "gc", "--quiet", "--aggressive"); err != nil {
		t.Fatal(err)
	}
	if _, packed := bundleOf(t, repo); !bytes.Equal(loose, packed) {
		t.Error("packing the repository changed the bundle")
	}
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(content []byte) (string, error) {
		file := filepath.Join(t.TempDir(), "site.bundle")
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return m.Fetch(t.Context(), mirror.Remote{URL: "bundle://" + file, Branch: "main"})
	}
	first, err := program(t.Context(), repo, "git", "rev-parse", "HEAD~1")
	if err != nil {
		t.Fatal(err)
	}
	_, delta := bundleOf(t, repo, strings.TrimSpace(first))
	if _, err := fetch(delta); err == nil {
		t.Error("a bundle without the first commit was taken where that is not")
	}
	if got, err := fetch(loose); err != nil || got != commit {
		t.Errorf("fetched %s, %v; want %s", got, err, commit)
	}
	if got, err := fetch(delta); err != nil || got != commit || len(delta) >= len(loose) {
		t.Errorf("of the difference: fetched %s, %v; %d and %d bytes", got, err, len(delta), len(loose))
	}
}
