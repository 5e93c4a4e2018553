package repository_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/repository"
)

var template = fstest.MapFS{
	"README.md":                           {Data: []byte("hello\n")},
	"clusters/default/kustomization.yaml": {Data: []byte("resources: []\n")},
}

// isolate hides the machine's Git configuration.
func isolate(t *testing.T) {
	t.Helper()
	gittest.Need(t, "git", "ssh-keygen")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// accept judges the repository's tip by the boot configuration it came with.
func accept(t *testing.T, r *repository.Result, last string) *acceptance.Accepted {
	t.Helper()
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	boot := r.BootConfig()
	if problems := boot.Validate(); len(problems) > 0 {
		boot.Default()
		if problems := boot.Validate(); len(problems) > 0 {
			t.Fatalf("boot configuration: %v", problems)
		}
	}
	tip, err := m.Fetch(context.Background(), mirror.Remote{URL: boot.Repository.URL, Branch: boot.Repository.Branch})
	if err != nil {
		t.Fatal(err)
	}
	var point *acceptance.Point
	if last != "" {
		point = &acceptance.Point{Commit: last}
	}
	got, err := acceptance.NewVerifier(m, time.Now).Verify(context.Background(), tip, point, boot.Trust)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestInitWithGeneratedKey(t *testing.T) {
	isolate(t)
	base := t.TempDir()
	r, err := repository.Init(context.Background(), repository.Options{
		Dir: filepath.Join(base, "site"), Bare: filepath.Join(base, "site.git"), Template: template,
		Key: repository.Key{Generate: filepath.Join(base, "keys", "id")}, SignerName: "alice",
	})
	if err != nil {
		t.Fatal(err)
	}
	first := accept(t, r, "")
	if first.ID != r.Commit || first.Signer.Signer != "alice" || first.Signer.Fingerprint != r.Fingerprint {
		t.Fatalf("accepted %+v, made %+v", first, r)
	}
	if shown := git(t, r.Dir, "log", "-1", "--show-signature"); !strings.Contains(shown, `Good "git" signature for alice`) {
		t.Errorf("git does not verify the signature:\n%s", shown)
	}

	// A plain commit and push is all that a user does afterwards.
	if err := os.WriteFile(filepath.Join(r.Dir, "README.md"), []byte("changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, r.Dir, "commit", "-q", "-a", "-m", "change")
	git(t, r.Dir, "push", "-q")
	if second := accept(t, r, r.Commit); second.ID == r.Commit || second.Signer.Signer != "alice" {
		t.Errorf("second commit: %+v", second)
	}
}

func TestInitWithExistingKeys(t *testing.T) {
	isolate(t)
	ssh := gittest.SSHKey(t, "bob")
	gpg := gittest.PGPKey(t, "gina", "0")
	for name, key := range map[string]repository.Key{
		signers.KindSSH:     {SSH: ssh.Private},
		signers.KindOpenPGP: {OpenPGP: gpg.Private},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GNUPGHOME", gpg.Home())
			r, err := repository.Init(context.Background(), repository.Options{Dir: filepath.Join(t.TempDir(), "site"), Template: template, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if got := accept(t, r, ""); got.Signer.Kind != name {
				t.Errorf("signer %+v", got.Signer)
			}
		})
	}
}

func TestInitRefuses(t *testing.T) {
	isolate(t)
	key := gittest.SSHKey(t, "bob")
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	noPublic := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(noPublic, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*repository.Options)
		want   string
	}{
		"target that is not empty": {func(o *repository.Options) { o.Dir = full }, "is not empty"},
		"no key":                   {func(o *repository.Options) { o.Key = repository.Key{} }, "exactly one signing key"},
		"missing key":              {func(o *repository.Options) { o.Key.SSH = "/nonexistent/id" }, "no such file"},
		"missing public part":      {func(o *repository.Options) { o.Key.SSH = noPublic }, "ssh-keygen -y -f"},
		"template without site":    {func(o *repository.Options) { o.Path = "clusters/other" }, "no directory clusters/other"},
		"bare within the tree":     {func(o *repository.Options) { o.Bare = filepath.Join(o.Dir, "x.git") }, "within each other"},
	} {
		t.Run(name, func(t *testing.T) {
			o := repository.Options{Dir: filepath.Join(t.TempDir(), "site"), Template: template, Key: repository.Key{SSH: key.Private}}
			c.change(&o)
			_, err := repository.Init(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if o.Dir != full {
				if _, err := os.Stat(o.Dir); err == nil {
					t.Error("a directory was left behind")
				}
			}
		})
	}
}

func TestInitWithoutGit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := repository.Init(context.Background(), repository.Options{Dir: filepath.Join(t.TempDir(), "site"), Template: template, Key: repository.Key{Generate: "x"}})
	if err == nil || !strings.Contains(err.Error(), "apt install git") {
		t.Fatalf("error %v", err)
	}
}
