package tree_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
	"github.com/bothy-os/bothy/reconciler/tree"
)

func commit(t *testing.T) fs.FS {
	t.Helper()
	r := gittest.NewRepo(t)
	r.Write("a.txt", "hello\n")
	r.Write("dir/sub/b.txt", "b\n")
	r.Link("dir/link", "../a.txt")
	r.Link("outside", "/etc")
	head := r.Commit(nil, "first")
	r.Git("update-index", "--add", "--cacheinfo", "160000,"+head+",module")
	head = r.Commit(nil, "second")
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fetch(context.Background(), mirror.Remote{URL: r.Dir, Branch: "main"}); err != nil {
		t.Fatal(err)
	}
	c, err := signers.ParseCommit(r.Raw(head))
	if err != nil {
		t.Fatal(err)
	}
	return tree.New(m, c.Tree, time.Unix(1, 0))
}

func TestFS(t *testing.T) {
	fsys := commit(t)
	var seen []string
	err := fs.WalkDir(fsys, ".", func(name string, _ fs.DirEntry, err error) error {
		seen = append(seen, name)
		return err
	})
	if want := ". a.txt dir dir/link dir/sub dir/sub/b.txt module outside"; err != nil || strings.Join(seen, " ") != want {
		t.Errorf("walked %v, %v; want %s", seen, err, want)
	}
	if data, err := fs.ReadFile(fsys, "dir/sub/b.txt"); err != nil || string(data) != "b\n" {
		t.Errorf("%q, %v", data, err)
	}
	if info, err := fs.Stat(fsys, "dir"); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
	for name, want := range map[string]error{
		"dir/link":       tree.ErrSymlink,
		"outside/passwd": tree.ErrSymlink,
		"module":         tree.ErrSubmodule,
		"module/x":       tree.ErrSubmodule,
		"missing":        fs.ErrNotExist,
		"a.txt/x":        fs.ErrNotExist,
		"../a.txt":       fs.ErrInvalid,
		"/a.txt":         fs.ErrInvalid,
		"dir/../a.txt":   fs.ErrInvalid,
	} {
		if _, err := fs.ReadFile(fsys, name); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
}

// TestID finds ids of paths from directories alone, and reads each directory
// once.
func TestID(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("a.txt", "hello\n")
	r.Write("dir/sub/b.txt", "b\n")
	r.Link("dir/link", "../a.txt")
	head := r.Commit(nil, "first")
	m, err := mirror.Open(filepath.Join(t.TempDir(), "git"), mirror.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Fetch(context.Background(), mirror.Remote{URL: r.Dir, Branch: "main"}); err != nil {
		t.Fatal(err)
	}
	c, err := signers.ParseCommit(r.Raw(head))
	if err != nil {
		t.Fatal(err)
	}
	counted := &counter{Mirror: m}
	fsys := tree.New(counted, c.Tree, time.Unix(1, 0))
	for range 3 {
		for _, name := range []string{"a.txt", "dir", "dir/link", "dir/sub", "dir/sub/b.txt"} {
			want := strings.TrimSpace(r.Git("rev-parse", "HEAD:"+name))
			if got, err := fsys.ID(name); err != nil || got != want {
				t.Errorf("%s: %s, %v; want %s", name, got, err, want)
			}
		}
	}
	if got, err := fsys.ID("."); err != nil || got != c.Tree {
		t.Errorf("root: %s, %v", got, err)
	}
	if _, err := fsys.ID("dir/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if counted.trees != 3 || counted.objects != 0 {
		t.Errorf("read %d directories and %d files", counted.trees, counted.objects)
	}
}

// counter counts what is read.
type counter struct {
	*mirror.Mirror
	trees, objects int
}

func (c *counter) Tree(id string) ([]mirror.Entry, error) {
	c.trees++
	return c.Mirror.Tree(id)
}

func (c *counter) Object(t mirror.ObjectType, id string) ([]byte, error) {
	c.objects++
	return c.Mirror.Object(t, id)
}
