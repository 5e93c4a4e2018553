package repository_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/reconciler/repository"
)

// What bothy commits for the user is signed, pushed, and nothing else.
func TestCommit(t *testing.T) {
	isolate(t)
	base := t.TempDir()
	r, err := repository.Init(context.Background(), repository.Options{
		Dir: filepath.Join(base, "site"), Bare: filepath.Join(base, "site.git"), Template: template,
		Key: repository.Key{Generate: filepath.Join(base, "keys", "id")}, SignerName: "alice",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "README.md"), []byte("half done\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"clusters/default/machines/a.yaml": []byte("a: 1\n"), "clusters/default/machines/b.yaml": []byte("b: 1\n")}
	commit, err := repository.Commit(context.Background(), filepath.Join(r.Dir, "clusters"), "Enrol machines", files)
	if err != nil {
		t.Fatal(err)
	}
	if got := accept(t, r, r.Commit); got.ID != commit || got.Signer.Signer != "alice" {
		t.Errorf("a site accepts %+v, committed was %s", got, commit)
	}
	if got := strings.Fields(git(t, r.Dir, "show", "--format=", "--name-only", commit)); len(got) != 2 {
		t.Errorf("the commit has %v", got)
	}
	if again, err := repository.Commit(context.Background(), r.Dir, "Enrol machines", files); err != nil || again != "" {
		t.Errorf("a second time: %q, %v", again, err)
	}
	if _, err := repository.Commit(context.Background(), base, "x", files); err == nil || !strings.Contains(err.Error(), "not a work tree") {
		t.Errorf("outside a work tree: %v", err)
	}
}
