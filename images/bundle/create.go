package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
)

// maxBlob bounds one layer, in bytes.
const maxBlob = 64 << 30

// maxGit bounds the Git bundle, in bytes: it is made in memory.
const maxGit = 512 << 20

// Options is one bundle.
type Options struct {
	// To is where it goes: a file if the name ends in ".tar", else a directory.
	// What an earlier, interrupted call left there is gone on with.
	To string
	// Images are full references; signatures and attestations come along.
	Images []string
	// Artifacts are what belongs to the site and is no image to run, with what is attached to them.
	Artifacts []Artifact
	// Platforms to take of images for several. Default: Linux on this machine.
	Platforms []ocispec.Platform
	// Sources are asked in order for each image.
	Sources []Source
	// Git carries the repository; nil for none.
	Git *Git
	// Site is the site's directory in the repository.
	Site string
	// Base is the bundle that the receiver has; nil for none.
	Base *Base
	// Progress is told what was read, from several goroutines; it may be nil.
	Progress func(Progress)
}

// Artifact is something that a node keeps and does not run as a container, such as its operating system.
type Artifact struct {
	// Reference is a full reference.
	Reference string
	// Type is the media type that its configuration must have. The index says it, so that nobody takes
	// the artifact for an image.
	Type string
	// Sources are asked for it, in order, in place of those of the bundle; nil for those.
	Sources []Source
}

// Git is the repository that a bundle carries.
type Git struct {
	// Commit is the newest commit.
	Commit string
	// Write writes a Git bundle that ends with it.
	Write func(ctx context.Context, w *bytes.Buffer) error
}

// Progress is how far a bundle is.
type Progress struct {
	// Image is the one that is worked on, number Number of Images.
	Image          string
	Number, Images int
	// Read counts the bytes that came from sources.
	Read int64
}

// Create makes a bundle and lists what is in it. Several problems are joined;
// with an error there is no bundle, but the blobs that arrived are kept for the
// next call.
func Create(ctx context.Context, o Options) (*Listing, error) {
	if len(o.Platforms) == 0 {
		o.Platforms = []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	dir := o.To
	toFile := strings.HasSuffix(o.To, ".tar")
	if toFile {
		dir += ".partial"
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := &collector{Options: o, blobs: Blobs{Dir: dir}, entries: map[string]ocispec.Descriptor{}, whole: map[digest.Digest]bool{}}
	index, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	listing, err := c.finish(index)
	if err != nil || !toFile {
		return listing, err
	}
	if err := writeTar(ctx, dir, o.To); err != nil {
		return nil, fmt.Errorf("write %s: %w", o.To, err)
	}
	return listing, os.RemoveAll(dir)
}

// lock makes a directory that nobody else writes a bundle into.
func lock(dir string) (unlock func(), err error) {
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a bundle: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("make a bundle: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("somebody else is making a bundle in %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// all collects everything and returns the index that names it.
func (c *collector) all(ctx context.Context) (*ocispec.Index, error) {
	var errs []error
	one := func(ref string, bring func() error) {
		if ctx.Err() != nil {
			return
		}
		c.progress.Image, c.progress.Images = ref, len(c.Images)+len(c.Artifacts)
		c.progress.Number++
		if err := bring(); err != nil {
			errs = append(errs, fmt.Errorf("image %s: %w", ref, err))
		}
	}
	for _, ref := range c.Images {
		one(ref, func() error { return c.image(ctx, ref) })
	}
	for _, a := range c.Artifacts {
		one(a.Reference, func() error { return c.artifact(ctx, a) })
	}
	if len(errs) == 0 {
		errs = append(errs, ctx.Err())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := c.git(ctx); err != nil {
		return nil, err
	}
	var entries []ocispec.Descriptor
	for _, d := range c.entries {
		entries = append(entries, d)
	}
	return newIndex(c.annotations(), entries), nil
}

func (c *collector) annotations() map[string]string {
	var platforms []string
	for _, p := range c.Platforms {
		platforms = append(platforms, platformText(p))
	}
	a := map[string]string{AnnotationVersion: formatVersion, AnnotationPlatforms: strings.Join(platforms, " ")}
	if c.Site != "" {
		a[AnnotationSite] = c.Site
	}
	if c.Git != nil {
		a[AnnotationCommit] = c.Git.Commit
	}
	if c.Base != nil {
		a[AnnotationBase] = c.Base.Digest.String()
		if c.Base.Commit != "" {
			a[AnnotationBaseCommit] = c.Base.Commit
		}
	}
	return a
}

// git adds the repository as an artifact.
func (c *collector) git(ctx context.Context) error {
	if c.Git == nil {
		return nil
	}
	var content bytes.Buffer
	if err := c.Git.Write(ctx, &content); err != nil {
		return fmt.Errorf("pack the repository: %w", err)
	}
	if content.Len() > maxGit {
		return fmt.Errorf("the repository takes %d MiB; more than %d MiB do not fit into a bundle", content.Len()>>20, maxGit>>20)
	}
	layer, err := c.blobs.Put(GitMedia, content.Bytes())
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{ocispec.AnnotationTitle: "site.bundle"}
	config, err := c.blobs.Put(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	if err != nil {
		return err
	}
	text, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: GitArtifact,
		Config: config, Layers: []ocispec.Descriptor{layer}, Annotations: map[string]string{AnnotationCommit: c.Git.Commit},
	})
	if err != nil {
		return err
	}
	desc, err := c.blobs.Put(ocispec.MediaTypeImageManifest, text)
	if err != nil {
		return err
	}
	desc.ArtifactType = GitArtifact
	desc.Annotations = map[string]string{AnnotationCommit: c.Git.Commit}
	c.entry("", desc)
	c.keep(layer, config, desc)
	return nil
}

// finish writes the index, after everything that it names, and drops what no
// longer belongs to the bundle.
func (c *collector) finish(index *ocispec.Index) (*Listing, error) {
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil, err
	}
	marker := []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}` + "\n")
	if err := durable.WriteFile(filepath.Join(c.blobs.Dir, ocispec.ImageLayoutFile), marker, 0o644); err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(c.blobs.Dir, ocispec.ImageIndexFile), append(text, '\n'), 0o644); err != nil {
		return nil, err
	}
	if err := c.blobs.RemoveExcept(c.whole); err != nil {
		return nil, err
	}
	return List(c.blobs.Dir)
}
