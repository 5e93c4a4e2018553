package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

func open(t *testing.T, limits mirror.Limits) *mirror.Mirror {
	t.Helper()
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), limits)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func fetch(t *testing.T, m *mirror.Mirror, url string) string {
	t.Helper()
	tip, err := m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main"})
	if err != nil {
		t.Fatal(err)
	}
	return tip
}

// serve makes the repository available over HTTP with git's own server.
func serve(t *testing.T, r *gittest.Repo, authorised func(*http.Request) bool) string {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not installed")
	}
	backend := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git-http-backend is not installed")
	}
	handler := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + r.Dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent"}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if authorised != nil && !authorised(req) {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/.git"
}

func TestFetch(t *testing.T) {
	for name, url := range map[string]func(*testing.T, *gittest.Repo) string{
		"path":     func(_ *testing.T, r *gittest.Repo) string { return r.Dir },
		"file URL": func(_ *testing.T, r *gittest.Repo) string { return "file://" + r.Dir + "/.git" },
		"http":     func(t *testing.T, r *gittest.Repo) string { return serve(t, r, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := gittest.NewRepo(t)
			r.Write("a", "one")
			first := r.Commit(nil, "first")
			m := open(t, mirror.Limits{})
			at := url(t, r)
			if tip := fetch(t, m, at); tip != first {
				t.Fatalf("tip %s", tip)
			}
			r.Write("dir/b", strings.Repeat("two ", 10_000))
			r.Git("checkout", "-q", "-b", "side")
			r.Write("c", "three")
			r.Commit(nil, "side")
			r.Git("checkout", "-q", "main")
			r.Write("d", "four")
			r.Commit(nil, "second")
			merged := r.Merge(nil, "side")
			r.Git("gc", "-q") // packed, with deltas
			if tip := fetch(t, m, at); tip != merged {
				t.Fatalf("tip %s", tip)
			}
			for object := range strings.SplitSeq(strings.TrimSpace(r.Git("rev-list", "--objects", "main")), "\n") {
				id, _, _ := strings.Cut(object, " ")
				if !m.Has(id) {
					t.Errorf("object %s was not fetched", id)
				}
			}
			if _, err := m.Object(mirror.CommitObject, merged); err != nil {
				t.Error(err)
			}
			// Nothing new costs nothing, and a forced push is followed: whether it
			// is acceptable is for others to say.
			fetch(t, m, at)
			r.Git("reset", "-q", "--hard", first)
			if tip := fetch(t, m, at); tip != first {
				t.Errorf("tip %s", tip)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Commit(nil, "first")
	url := serve(t, r, func(req *http.Request) bool {
		user, password, _ := req.BasicAuth()
		return user == "u" && password == "secret"
	})
	m := open(t, mirror.Limits{})
	file := filepath.Join(t.TempDir(), "credentials")
	for _, c := range []struct {
		text, want string
		mode       os.FileMode
	}{
		{"username: u\npassword: secret\n", "", 0o600},
		{"username: u\npassword: wrong\n", "credentialsFile", 0o600},
		{"username: u\npasword: secret\n", `:2: pasword: unknown field; did you mean "password"?`, 0o600},
		{"username: u\npassword: secret\n", "chmod 600", 0o644},
	} {
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main", CredentialsFile: file})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the error gives the secret away: %v", err)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	empty := gittest.NewRepo(t)
	other := gittest.NewRepo(t)
	other.Git("checkout", "-q", "-b", "trunk")
	other.Commit(nil, "first")
	sha256 := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--object-format=sha256", sha256).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	shallow := filepath.Join(t.TempDir(), "shallow")
	deep := gittest.NewRepo(t)
	deep.Commit(nil, "one")
	deep.Commit(nil, "two")
	deep.Git("clone", "-q", "--depth=1", "file://"+deep.Dir, shallow)
	for name, c := range map[string]struct{ url, want string }{
		"missing":           {"/nonexistent/repo", "check repository.url"},
		"not a repository":  {t.TempDir(), "check repository.url"},
		"empty":             {empty.Dir, `push a commit to branch "main"`},
		"other branch":      {other.Dir, `has no branch "main", only trunk`},
		"sha256":            {sha256, "object format is sha256"},
		"shallow":           {shallow, "shallow clone"},
		"refused":           {"http://127.0.0.1:1/x", "check that the server runs"},
		"http without TLS":  {"http://example.com/x", "use https"},
		"ssh without keys":  {"ssh://git@127.0.0.1/x", "knownHosts"},
		"unknown transport": {"ftp://127.0.0.1/x", "use https, ssh, file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, mirror.Limits{}).Fetch(context.Background(), mirror.Remote{URL: c.url, Branch: "main"})
			var fe *mirror.FetchError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.url) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("zeros", strings.Repeat("\x00", 4_000_000)) // small once compressed
	r.Commit(nil, "bomb")
	for name, url := range map[string]string{"path": r.Dir, "http": serve(t, r, nil)} {
		for what, limits := range map[string]mirror.Limits{"object": {Object: 1_000_000}, "objects": {Objects: 1_000_000}, "pack": {Fetch: 100}} {
			t.Run(name+" "+what, func(t *testing.T) {
				m := open(t, limits)
				_, err := m.Fetch(context.Background(), mirror.Remote{URL: url, Branch: "main"})
				if !errors.Is(err, mirror.ErrTooLarge) {
					t.Fatalf("error %v", err)
				}
				if m.Has(r.Head()) {
					t.Error("something was taken in")
				}
			})
		}
	}
}

func TestHooksAreNotRun(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Commit(nil, "first")
	mark := filepath.Join(t.TempDir(), "ran")
	for _, hook := range []string{"post-checkout", "pre-receive", "update", "post-update", "reference-transaction"} {
		if err := os.WriteFile(filepath.Join(r.Dir, ".git", "hooks", hook), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.Git("config", "uploadpack.packObjectsHook", "touch "+mark)
	fetch(t, open(t, mirror.Limits{}), r.Dir)
	if _, err := os.Stat(mark); err == nil {
		t.Error("a program of the repository was run")
	}
}

// TestTamperedObject lets the index find other content under the id of an
// object.
func TestTamperedObject(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("a", "one")
	r.Write("b", "evil")
	r.Commit(nil, "first")
	dir := filepath.Join(t.TempDir(), "git")
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, m, r.Dir)
	blob := strings.TrimSpace(r.Git("rev-parse", "HEAD:a"))
	evil := strings.TrimSpace(r.Git("rev-parse", "HEAD:b"))
	indexes, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.idx"))
	if err != nil || len(indexes) != 1 {
		t.Fatal(indexes, err)
	}
	data, err := os.ReadFile(indexes[0])
	if err != nil {
		t.Fatal(err)
	}
	// The object's name is put in the place of another one's.
	name := func(id string) []byte { h := plumbing.NewHash(id); return h[:] }
	data = bytes.Replace(data, name(evil), []byte("xxxxxxxxxxxxxxxxxxxx"), 1)
	data = bytes.Replace(data, name(blob), name(evil), 1)
	data = bytes.Replace(data, []byte("xxxxxxxxxxxxxxxxxxxx"), name(blob), 1)
	if err := os.WriteFile(indexes[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err = mirror.Open(dir, mirror.Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{blob, evil} {
		if content, err := m.Object(mirror.BlobObject, id); err == nil {
			t.Errorf("%s was read as %q", id, content)
		}
	}
}

func TestForeignConfigurationIsNotUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "git")
	if _, err := mirror.Open(dir, mirror.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte("[core]\n\tfsmonitor = evil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := mirror.Open(dir, mirror.Limits{})
	if !errors.Is(err, mirror.ErrCorrupt) {
		t.Fatalf("error %v", err)
	}
	if err := m.Reset(); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.Open(dir, mirror.Limits{}); err != nil {
		t.Error(err)
	}
}

// TestTidy makes more fetches than the mirror keeps packs.
func TestTidy(t *testing.T) {
	r := gittest.NewRepo(t)
	dir := filepath.Join(t.TempDir(), "git")
	m, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	r.Write("a", "kept")
	kept := r.Commit(nil, "accepted")
	tip := ""
	for i := range 60 {
		r.Write("b", strings.Repeat("x", i))
		want := r.Commit(nil, "next")
		if tip, err = m.Fetch(context.Background(), mirror.Remote{URL: r.Dir, Branch: "main"}, kept); err != nil || tip != want {
			t.Fatalf("fetch %d: %s, %v", i, tip, err)
		}
	}
	if err := m.Tidy(context.Background(), kept); err != nil {
		t.Fatal(err)
	}
	packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
	if err != nil || len(packs) > 50 {
		t.Errorf("%d packs, %v", len(packs), err)
	}
	again, err := mirror.Open(dir, mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*mirror.Mirror{m, again} {
		for object := range strings.SplitSeq(strings.TrimSpace(r.Git("rev-list", "--objects", "main")), "\n") {
			id, _, _ := strings.Cut(object, " ")
			if !m.Has(id) {
				t.Errorf("object %s was lost", id)
			}
		}
		if got, err := m.Tip("main"); err != nil || got != tip {
			t.Errorf("tip %s, %v", got, err)
		}
	}
	// What bothy writes is a repository like any other.
	r.Git("--git-dir="+dir, "fsck", "--full", "--strict")
}
