package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/build/ignore"
	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// maxRead bounds the bytes of all files that one build reads.
const maxRead = 64 << 20

// maxObjects bounds the objects of one build.
const maxObjects = 20_000

// Options say what to build and how.
type Options struct {
	// Dir is the directory to build, relative to the root of the files; "" and
	// "." are the root.
	Dir string
	// Kustomization, if not nil, is the Flux object whose namePrefix,
	// nameSuffix, targetNamespace, commonMetadata, patches, images, components,
	// ignoreMissingComponents and buildMetadata are applied with Flux's meaning,
	// and plain directories are then read as Flux reads them. Nothing else of
	// the object is looked at; its path is Dir.
	Kustomization *kustomizev1.Kustomization
	// Substitute are the variables of post-build substitution, with those of
	// substituteFrom merged in by the caller. Nil means no substitution; an
	// empty map substitutes with defaults alone (substituteStrategy: Always).
	Substitute map[string]string
	// StrictSubstitute makes a variable without value and default an error.
	StrictSubstitute bool
	// Decrypt opens what SOPS encrypted. Nil makes an encrypted object an error
	// that says what to configure.
	Decrypt Decryptor
	// Skip, if not nil, is asked for each object; a reason keeps it out of the
	// result.
	Skip func(*unstructured.Unstructured) (reason string)
}

// Decryptor opens files that SOPS encrypted; [sops.Keys] is one.
type Decryptor interface {
	// Decrypt returns the plain content of a file in the given format. An error
	// says who could open it; it never holds plain text.
	Decrypt(data []byte, format sops.Format) ([]byte, error)
}

// Result is what a build made.
type Result struct {
	// Objects in the order of the files.
	Objects []*unstructured.Unstructured
	// Skipped are the objects that [Options.Skip] kept out.
	Skipped []Skipped
	// Reads is everything that the result depends on, apart from the options.
	Reads *Reads
}

// Skipped is an object that is in the files and is not to be applied.
type Skipped struct {
	Object *unstructured.Unstructured
	Reason string
}

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

// Build returns the objects that a directory of fsys describes. Several
// problems are joined. With an error the result still has the Reads, so that a
// caller can tell that trying again is of no use; it has no objects then.
func Build(ctx context.Context, fsys fs.FS, o Options) (*Result, error) {
	reads := newReads(fsys)
	b := &builder{
		ctx:     ctx,
		fsys:    reads.files(),
		options: o,
		seen:    map[string]string{},
		result:  &Result{Reads: reads},
	}
	if err := checkVariables(o.Substitute); err != nil {
		b.fail(err)
	} else {
		b.root(cleanDir(o.Dir))
	}
	reads.seal()
	err := errors.Join(b.errs...)
	if ended := ctx.Err(); ended != nil {
		reads.doubt()
		err = ended
	}
	if err != nil {
		return &Result{Reads: reads}, err
	}
	b.commonMetadata()
	return b.result, nil
}

func cleanDir(dir string) string {
	return relative(path.Clean("/" + dir))
}

type builder struct {
	ctx     context.Context
	fsys    *ignore.FS
	options Options
	read    int64
	result  *Result
	seen    map[string]string // object → file
	secrets secrets
	errs    []error
}

func (b *builder) fail(err error) { b.errs = append(b.errs, err) }

// flux reports whether the build follows Flux where it differs from the build
// of a site.
func (b *builder) flux() bool { return b.options.Kustomization != nil }

func (b *builder) root(dir string) {
	if info, err := fs.Stat(b.fsys, dir); err != nil || !info.IsDir() {
		remedy := "create it, or correct repository.path in the boot configuration"
		if b.flux() {
			remedy = "create it, or correct spec.path"
		}
		b.fail(&Error{File: dir, Problem: "is not a directory of the repository", Remedy: remedy})
		return
	}
	if b.flux() && needsKustomize(&b.options.Kustomization.Spec) {
		b.overlaid(dir)
		return
	}
	b.directory(dir)
}

// directory adds the objects of a directory.
func (b *builder) directory(dir string) {
	entries, err := fs.ReadDir(b.fsys, dir)
	if err != nil {
		b.fail(&Error{File: dir, Problem: reason(err)})
		return
	}
	if hasKustomization(entries) {
		b.kustomization(dir, nil)
		return
	}
	for _, e := range entries {
		if b.ctx.Err() != nil {
			return
		}
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && (b.flux() || !strings.HasPrefix(e.Name(), ".")):
			b.directory(name)
		case b.isManifest(e):
			b.file(name)
		}
	}
}

func hasKustomization(entries []fs.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !e.IsDir() && slices.Contains(kustomizationNames, e.Name())
	})
}

// isManifest says which files of a plain directory are read. Flux takes YAML
// alone, hidden files included, and does not see what is not a regular file; a
// site takes JSON as well, leaves hidden files alone and stumbles over links.
func (b *builder) isManifest(e fs.DirEntry) bool {
	ext := path.Ext(e.Name())
	isYAML := ext == ".yaml" || ext == ".yml"
	if b.flux() {
		return isYAML && e.Type().IsRegular()
	}
	return (isYAML || ext == ".json") && !e.IsDir() && !strings.HasPrefix(e.Name(), ".")
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

// take makes an object of the files one of the result: it is decrypted, its
// variables are replaced, and it is checked.
func (b *builder) take(file string, u *unstructured.Unstructured) {
	if groupOf(u.GetAPIVersion()) == groupOf(v1alpha1.GroupVersion) || isLocal(u) {
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
	err := b.decryptObject(u)
	if err == nil {
		u, err = b.substituted(u)
	}
	if err != nil {
		b.fail(withFile(err, file, name))
		return
	}
	b.add(file, u)
}

// add takes an object into the result unless it is there already or is to be
// skipped.
func (b *builder) add(file string, u *unstructured.Unstructured) {
	key := u.GroupVersionKind().GroupKind().String() + " " + u.GetNamespace() + "/" + u.GetName()
	if first, dup := b.seen[key]; dup {
		problem := "is there twice"
		if first != "" && first != file {
			problem = "is also in " + first
		}
		b.fail(&Error{File: file, Object: describe(u), Problem: problem, Remedy: "keep one of them"})
		return
	}
	if len(b.seen) >= maxObjects {
		b.fail(&Error{File: file, Object: describe(u), Problem: fmt.Sprintf("is one object too many: the limit is %d", maxObjects), Remedy: "split the directory"})
		return
	}
	b.seen[key] = file
	if b.options.Skip != nil {
		if reason := b.options.Skip(u); reason != "" {
			b.result.Skipped = append(b.result.Skipped, Skipped{Object: u, Reason: reason})
			return
		}
	}
	b.result.Objects = append(b.result.Objects, u)
}

// isLocal reports whether the object is only for tools, by kustomize's
// convention.
func isLocal(u *unstructured.Unstructured) bool {
	return u.GetAnnotations()["config.kubernetes.io/local-config"] == "true"
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

// withFile adds the place to an error that does not know it.
func withFile(err error, file, object string) error {
	var known *Error
	if errors.As(err, &known) {
		out := *known
		if out.File == "" {
			out.File = file
		}
		if out.Object == "" {
			out.Object = object
		}
		return &out
	}
	return &Error{File: file, Object: object, Problem: err.Error()}
}
