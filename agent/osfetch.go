package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/registry"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/os/image"
	"github.com/bothy-os/bothy/os/update"
	"github.com/bothy-os/bothy/reconciler"
)

// osPlaces is the state directory, as far as images of operating systems are in it.
type osPlaces string

// staging holds what has come in of an image, as an OCI layout.
func (p osPlaces) staging() string { return filepath.Join(string(p), update.Dir, "staging") }

// seed is an OCI layout that somebody brought along with the boot configuration.
func (p osPlaces) seed() string { return filepath.Join(string(p), "seed", "os") }

// store has what came in bundles.
func (p osPlaces) store() string { return filepath.Join(string(p), "images") }

// osArtifact is a verified image on disk.
type osArtifact struct {
	image update.Image
	root  *os.File
	// dir is where it is.
	dir string
}

// Close lets go of the files.
func (a *osArtifact) Close() { a.root.Close() }

// discard removes the files: they have been written elsewhere.
func (a *osArtifact) discard() { _ = os.RemoveAll(a.dir) } // the next image replaces what stays

// fetch brings an image in, with what was signed about it, and verifies all of it. What an
// earlier attempt has brought is not fetched again.
func (o *osUpdates) fetch(ctx context.Context, snap *reconciler.Snapshot, spec v1alpha1.OSSpec) (*osArtifact, error) {
	sources, err := o.osSources(spec)
	if err != nil {
		return nil, err
	}
	if err := o.preview(ctx, spec, sources); err != nil {
		return nil, err
	}
	var failed error
	for _, s := range sources {
		a, err := o.fetchFrom(ctx, snap, spec, s)
		if err == nil || ctx.Err() != nil {
			return a, err
		}
		// What is damaged here, or was not signed when it was brought here, may be better elsewhere.
		failed = bothReasons(failed, err)
	}
	return nil, failed
}

// bothReasons joins errors, except that it says less that somebody has nothing.
func bothReasons(a, b error) error {
	switch {
	case a == nil || errors.Is(a, fs.ErrNotExist):
		return b
	case errors.Is(b, fs.ErrNotExist):
		return a
	}
	return errors.Join(a, b)
}

// fetchFrom brings an image in from one place.
func (o *osUpdates) fetchFrom(ctx context.Context, snap *reconciler.Snapshot, spec v1alpha1.OSSpec, from bundle.Source) (*osArtifact, error) {
	_, err := bundle.Create(ctx, bundle.Options{
		To:        o.places.staging(),
		Artifacts: []bundle.Artifact{{Reference: spec.Image, Type: string(image.MediaTypeConfig)}}, Sources: []bundle.Source{from},
		Progress: func(p bundle.Progress) { o.set(func(s *OSStatus) { s.Read = p.Read }) },
	})
	if err != nil {
		return nil, fmt.Errorf("fetch the operating system: %w", err)
	}
	l, err := layout.Open(o.places.staging())
	if err != nil {
		return nil, err
	}
	if err := o.judgeOS(snap, spec); err != nil {
		return nil, err
	}
	return openOS(l, spec)
}

// osSources are where an image may be, nearest first.
func (o *osUpdates) osSources(spec v1alpha1.OSSpec) ([]bundle.Source, error) {
	var out []bundle.Source
	for _, dir := range []string{o.places.seed(), o.places.store()} {
		l, err := layout.Open(dir)
		switch {
		case err == nil:
			out = append(out, bundle.LayoutByDigest(l))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	config := registry.Config{Registries: map[string]registry.Registry{}}
	OSRegistry(config.Registries, spec)
	if file := spec.Registry.CredentialsFile; file != "" {
		known, err := registry.CredentialsFile(file)
		if err != nil {
			return nil, err
		}
		config.Keychain = known
	}
	return append(out, registry.New(config)), nil
}

// OSRegistry adds to settings of registries how a commit says that the registry of its operating system is reached. What
// is there goes before it.
func OSRegistry(into map[string]registry.Registry, spec v1alpha1.OSSpec) {
	host, _, _ := strings.Cut(spec.Image, "/")
	r := into[host]
	r.Mirrors = slices.Concat(r.Mirrors, spec.Registry.Mirrors)
	r.CAs = spec.Registry.CACertificates
	r.PlainHTTP = r.PlainHTTP || spec.Registry.PlainHTTP
	into[host] = r
}

// preview refuses what can be refused before it is fetched.
func (o *osUpdates) preview(ctx context.Context, spec v1alpha1.OSSpec, sources []bundle.Source) error {
	repository, _, _ := strings.Cut(spec.Image, "@")
	var m *ocispec.Manifest
	var failed error
	for _, s := range sources {
		desc, err := s.Resolve(ctx, spec.Image)
		if err == nil {
			m, err = readOSManifest(ctx, s, trimTag(repository), desc)
		}
		if err == nil || ctx.Err() != nil {
			failed = err
			break
		}
		failed = bothReasons(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("find the operating system: %w", failed)
	}
	if flavour := m.Annotations[image.AnnotationFlavour]; flavour != "" && flavour != o.release["VARIANT_ID"] {
		return fmt.Errorf("image %s is of the flavour %q, this machine runs %q: name an image of that", spec.Image, flavour, o.release["VARIANT_ID"])
	}
	have := bundle.Blobs{Dir: o.places.staging()}
	need := int64(0)
	for _, d := range m.Layers {
		if !have.Has(d) {
			need += d.Size
		}
	}
	return roomFor(string(o.places), need, "the operating system")
}

// trimTag leaves the repository of a reference.
func trimTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

func readOSManifest(ctx context.Context, s bundle.Source, repository string, desc ocispec.Descriptor) (*ocispec.Manifest, error) {
	data, err := s.Manifest(ctx, repository, desc)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("the manifest hashes to %s, not to %s", got, desc.Digest)
	}
	m, err := layout.DecodeManifest(data, desc)
	if err == nil && m.Config.MediaType != string(image.MediaTypeConfig) {
		err = fmt.Errorf("%s is no operating system of bothy's but %q", desc.Digest, m.Config.MediaType)
	}
	return m, err
}

// judgeOS asks the image policy of the commit. A site without one trusts what its commits,
// which are signed, name by digest.
func (o *osUpdates) judgeOS(snap *reconciler.Snapshot, spec v1alpha1.OSSpec) error {
	files, err := policy.Read(snap.Files)
	if err != nil || files == nil {
		return err
	}
	p, err := policy.Compile(files)
	if err != nil {
		return err
	}
	config := gateConfig([]string{o.places.store(), o.places.staging()}, o.log)
	name, _, _ := strings.Cut(spec.Image, "@")
	if v := gate.New(config).Try(p, verify.Image{Name: name + "@" + spec.Digest(), Digests: []string{spec.Digest()}}); !v.Allowed {
		return fmt.Errorf("the operating system is not started: %w", v.Err())
	}
	return nil
}

// openOS finds the parts of an image in a layout.
func openOS(l *layout.Layout, spec v1alpha1.OSSpec) (*osArtifact, error) {
	entries, err := l.Entries()
	if err != nil {
		return nil, err
	}
	for _, d := range entries {
		if d.Digest.String() != spec.Digest() {
			continue
		}
		_, m, err := l.Manifest(d, "linux", "")
		if err != nil {
			return nil, err
		}
		return openOSParts(l, m, spec.Image)
	}
	return nil, fmt.Errorf("image %s did not come in", spec.Image)
}

func openOSParts(l *layout.Layout, m *ocispec.Manifest, name string) (*osArtifact, error) {
	a := &osArtifact{dir: l.Dir}
	for _, d := range m.Layers {
		switch d.MediaType {
		case string(image.MediaTypeBootFile):
			if d.Size > maxBootFile {
				return nil, fmt.Errorf("the boot file of image %s has %d MiB, more than %d", name, d.Size>>20, maxBootFile>>20)
			}
			data, err := os.ReadFile(l.BlobPath(d.Digest))
			if err != nil {
				return nil, err
			}
			if got := digest.FromBytes(data); got != d.Digest {
				return nil, fmt.Errorf("the boot file of image %s hashes to %s, not to %s", name, got, d.Digest)
			}
			a.image.BootFile = data
		case string(image.MediaTypeRoot):
			f, err := l.OpenBlob(d)
			if err != nil {
				return nil, err
			}
			a.root, a.image.Root, a.image.RootSize = f, f, d.Size
		}
	}
	if a.root == nil || a.image.BootFile == nil {
		if a.root != nil {
			a.Close()
		}
		return nil, fmt.Errorf("image %s has no boot file or no root file system: it was not made by `bothy os build`", name)
	}
	return a, nil
}

// maxBootFile bounds what is read into memory, in bytes.
const maxBootFile = 128 << 20
