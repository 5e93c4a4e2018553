package build_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/build/ignore"
)

// objects is files with object ids, as a Git tree has them, that counts what is
// asked of it.
type objects struct {
	fstest.MapFS
	ids   map[string]string
	asked int
	read  int
}

func (f files) objects() *objects {
	o := &objects{MapFS: fstest.MapFS{}, ids: map[string]string{}}
	below := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		o.MapFS[name] = &fstest.MapFile{Data: []byte(f[name])}
		o.ids[name] = hash(f[name])
		for at := path.Dir(name); ; at = path.Dir(at) {
			below[at] = append(below[at], name+o.ids[name])
			if at == "." {
				break
			}
		}
	}
	for dir, content := range below {
		o.ids[dir] = hash(strings.Join(content, "\n"))
	}
	return o
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (o *objects) ID(name string) (string, error) {
	o.asked++
	id, ok := o.ids[name]
	if !ok {
		return "", &fs.PathError{Op: "identify", Path: name, Err: fs.ErrNotExist}
	}
	return id, nil
}

func (o *objects) ReadFile(name string) ([]byte, error) {
	o.read++
	return o.MapFS.ReadFile(name)
}

func (f files) with(name, text string) files {
	out := maps.Clone(f)
	out[name] = text
	return out
}

func (f files) without(name string) files {
	out := maps.Clone(f)
	delete(out, name)
	return out
}

// TestReads changes one thing after another beside and below what a build reads.
func TestReads(t *testing.T) {
	base := files{
		"apps/web/kustomization.yaml": "resources: [../../base, cm.yaml]\nconfigMapGenerator: [{name: g, files: [data/x.txt]}]\n",
		"apps/web/cm.yaml":            configMap,
		"apps/web/data/x.txt":         "x",
		"apps/web/unused.yaml":        "x",
		"apps/plain/a.yaml":           configMap,
		"apps/plain/sub/b.yaml":       strings.Replace(configMap, "name: a", "name: b", 1),
		"apps/other/c.yaml":           configMap,
		"base/kustomization.yaml":     "resources: [d.yaml]\n",
		"base/d.yaml":                 strings.Replace(configMap, "name: a", "name: d", 1),
		"base/readme.md":              "x",
	}
	for name, c := range map[string]struct {
		dir    string
		change func(files) files
		same   bool
	}{
		"nothing":                         {"apps/web", func(f files) files { return f }, true},
		"a file of another directory":     {"apps/web", func(f files) files { return f.with("apps/other/c.yaml", "x") }, true},
		"a new directory":                 {"apps/web", func(f files) files { return f.with("new/x.yaml", "x") }, true},
		"a file beside that nobody reads": {"apps/web", func(f files) files { return f.with("apps/web/unused.yaml", "y") }, true},
		"a resource":                      {"apps/web", func(f files) files { return f.with("apps/web/cm.yaml", configMap+"# x\n") }, false},
		"a file of a generator":           {"apps/web", func(f files) files { return f.with("apps/web/data/x.txt", "y") }, false},
		"a file beside it":                {"apps/web", func(f files) files { return f.with("apps/web/data/y.txt", "y") }, true},
		"the base":                        {"apps/web", func(f files) files { return f.with("base/d.yaml", configMap) }, false},
		"a readme of the base":            {"apps/web", func(f files) files { return f.with("base/readme.md", "y") }, true},
		"the kustomization of the base":   {"apps/web", func(f files) files { return f.with("base/kustomization.yaml", "resources: []\n") }, false},
		"a second kustomization":          {"apps/web", func(f files) files { return f.with("base/kustomization.yml", "resources: []\n") }, false},
		"a resource is gone":              {"apps/web", func(f files) files { return f.without("apps/web/cm.yaml") }, false},
		"the directory is gone":           {"apps/plain", func(f files) files { return f.without("apps/plain/a.yaml").without("apps/plain/sub/b.yaml") }, false},
		"a plain manifest":                {"apps/plain", func(f files) files { return f.with("apps/plain/sub/b.yaml", configMap) }, false},
		"a new plain manifest":            {"apps/plain", func(f files) files { return f.with("apps/plain/sub/c.yaml", configMap) }, false},
		"a new plain directory":           {"apps/plain", func(f files) files { return f.with("apps/plain/more/c.yaml", configMap) }, false},
		"a plain manifest is gone":        {"apps/plain", func(f files) files { return f.without("apps/plain/sub/b.yaml") }, false},
		"ignore rules at the root":        {"apps/plain", func(f files) files { return f.with(".sourceignore", "sub/\n") }, false},
		"ignore rules of the directory":   {"apps/plain", func(f files) files { return f.with("apps/plain/.sourceignore", "sub/\n") }, false},
		"ignore rules elsewhere":          {"apps/plain", func(f files) files { return f.with("apps/web/.sourceignore", "*\n") }, true},
		"a directory that was not there":  {"apps/gone", func(f files) files { return f.with("apps/gone/a.yaml", configMap) }, false},
		"another that is not there":       {"apps/gone", func(f files) files { return f.with("apps/more/a.yaml", configMap) }, true},
	} {
		for kind, show := range map[string]func(files) fs.FS{
			"with ids":    func(f files) fs.FS { return f.objects() },
			"without ids": files.fs,
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				o := build.Options{Dir: c.dir, Kustomization: spec(func(*kustomizev1.KustomizationSpec) {})}
				result, err := build.Build(context.Background(), show(base), o)
				if (err != nil) != (c.dir == "apps/gone") {
					t.Fatal(err)
				}
				if got := result.Reads.Same(show(c.change(base))); got != c.same {
					t.Errorf("the same: %t, want %t", got, c.same)
				}
			})
		}
	}
}

// TestReadsKnowIgnoreRules: the rules of a source object are part of what a
// build depends on.
func TestReadsKnowIgnoreRules(t *testing.T) {
	in := files{"a.yaml": configMap, "b/c.yaml": strings.Replace(configMap, "name: a", "name: b", 1)}
	result, err := build.Build(context.Background(), ignore.New(in.objects(), "b/\n"), build.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(result.Objects); got != "ConfigMap /a" {
		t.Errorf("built %s", got)
	}
	for patterns, want := range map[string]bool{"b/\n": true, "": false, "c/\n": false} {
		if got := result.Reads.Same(ignore.New(in.objects(), patterns)); got != want {
			t.Errorf("the same with %q: %t", patterns, got)
		}
	}
}

// TestSameIsIndependentOfSize counts questions instead of time.
func TestSameIsIndependentOfSize(t *testing.T) {
	in := files{}
	for i := range 10_000 {
		in[fmt.Sprintf("apps/%d/%d/a.yaml", i/100, i%100)] = configMap
	}
	before := in.objects()
	result, err := build.Build(context.Background(), before, build.Options{Dir: "apps/7/7", Kustomization: spec(func(*kustomizev1.KustomizationSpec) {})})
	if err != nil {
		t.Fatal(err)
	}
	if before.read > 6 {
		t.Errorf("the build of one file tried to read %d", before.read)
	}
	after := in.with("apps/7/8/a.yaml", "changed").objects()
	if !result.Reads.Same(after) {
		t.Error("a change elsewhere counts")
	}
	if after.asked > 10 || after.read > 0 {
		t.Errorf("asked for %d ids and read %d files", after.asked, after.read)
	}
}

// failing is files of which one cannot be read, although it is there.
type failing struct {
	*objects
	name string
}

func (f failing) ReadFile(name string) ([]byte, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("input/output error")}
	}
	return f.objects.ReadFile(name)
}

// TestFailedReadsAreNeverTheSame: a build that failed for a disk that recovers
// must be made again.
func TestFailedReadsAreNeverTheSame(t *testing.T) {
	in := files{"a.yaml": configMap, "k/kustomization.yaml": "resources: [../a.yaml]\n"}
	for _, dir := range []string{".", "k"} {
		result, err := build.Build(context.Background(), failing{in.objects(), "a.yaml"}, build.Options{Dir: dir})
		if err == nil || result.Reads.Same(in.objects()) {
			t.Errorf("%s: the same after %v", dir, err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if result, err := build.Build(ended, in.objects(), build.Options{}); err == nil || result.Reads.Same(in.objects()) {
		t.Errorf("the same after %v", err)
	}
}
