package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// maxRead bounds the bytes of all files that one build reads.
const maxRead = 64 << 20

// maxObjects bounds the objects of one build.
const maxObjects = 20_000

// Error is why a directory cannot be built.
type Error struct {
	// File is the path in the repository, Object "Kind namespace/name"; either
	// may be unknown.
	File, Object string
	Problem      string
	Remedy       string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	if e.Object != "" {
		b.WriteString(e.Object + ": ")
	}
	b.WriteString(e.Problem)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// kustomizationNames are the file names that kustomize looks for.
var kustomizationNames = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// Build returns the objects that the directory dir of fsys describes, in the
// order of the files. Several problems are joined.
func Build(ctx context.Context, fsys fs.FS, dir string) ([]*unstructured.Unstructured, error) {
	b := &builder{ctx: ctx, fsys: fsys, seen: map[string]string{}}
	if info, err := fs.Stat(fsys, dir); err != nil || !info.IsDir() {
		return nil, &Error{File: dir, Problem: "is not a directory of the repository", Remedy: "create it, or correct repository.path in the boot configuration"}
	}
	b.directory(dir)
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	return b.objects, ctx.Err()
}

type builder struct {
	ctx     context.Context
	fsys    fs.FS
	read    int64
	objects []*unstructured.Unstructured
	seen    map[string]string // object → file
	errs    []error
}

func (b *builder) fail(err error) { b.errs = append(b.errs, err) }

// directory adds the objects of a directory.
func (b *builder) directory(dir string) {
	entries, err := fs.ReadDir(b.fsys, dir)
	if err != nil {
		b.fail(&Error{File: dir, Problem: err.Error()})
		return
	}
	for _, e := range entries {
		if slices.Contains(kustomizationNames, e.Name()) {
			b.kustomization(dir)
			return
		}
	}
	for _, e := range entries {
		if b.ctx.Err() != nil {
			return
		}
		name := path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			b.directory(name)
		case isManifest(e.Name()):
			b.file(name)
		}
	}
}

func isManifest(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// readFile reads a file within the budget of the build.
func (b *builder) readFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(b.fsys, name)
	if err != nil {
		return nil, err
	}
	if b.read += int64(len(data)); b.read > maxRead {
		return nil, fmt.Errorf("the build reads more than %d MiB", maxRead>>20)
	}
	return data, nil
}

// add takes an object into the result after checking what every object needs.
func (b *builder) add(file string, u *unstructured.Unstructured) {
	if u.GroupVersionKind().Group == groupOf(v1alpha1.GroupVersion) {
		return
	}
	name := describe(u)
	bad := func(problem, remedy string) {
		b.fail(&Error{File: file, Object: name, Problem: problem, Remedy: remedy})
	}
	switch {
	case u.GetAPIVersion() == "" || u.GetKind() == "":
		bad("is not a Kubernetes object: apiVersion or kind is missing", "add them, or move the file out of this directory")
		return
	case u.GetName() == "":
		bad("has no metadata.name", "give it a name; generateName makes a new object at each apply")
		return
	}
	if _, encrypted := u.Object["sops"]; encrypted {
		bad("is encrypted with SOPS, which this version cannot decrypt", "remove it from the build, or apply it by other means")
		return
	}
	key := u.GroupVersionKind().GroupKind().String() + " " + u.GetNamespace() + "/" + u.GetName()
	if first, dup := b.seen[key]; dup {
		problem := "is there twice"
		if first != "" && first != file {
			problem = "is also in " + first
		}
		bad(problem, "keep one of them")
		return
	}
	if len(b.objects) >= maxObjects {
		bad(fmt.Sprintf("is one object too many: the limit is %d", maxObjects), "split the site")
		return
	}
	b.seen[key] = file
	b.objects = append(b.objects, u)
}

func groupOf(groupVersion string) string {
	group, _, _ := strings.Cut(groupVersion, "/")
	return group
}

func describe(u *unstructured.Unstructured) string {
	name := u.GetName()
	if ns := u.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return strings.TrimSpace(u.GetKind() + " " + name)
}
