package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/bothy-os/bothy/images/layout"
)

const (
	// parallel is how many blobs of an image are read at once.
	parallel = 4
	// maxDepth bounds signatures of attestations of signatures.
	maxDepth = 3
)

// attachments are the suffixes of the tags that signatures and the like have.
var attachments = []string{".sig", ".att", ".sbom"}

// dockerReference is an annotation of what build tools attest about an image in
// the same index.
const dockerReference = "vnd.docker.reference.digest"

// collector brings images into a directory.
type collector struct {
	Options
	blobs Blobs
	// entries of the index by name and digest.
	entries map[string]ocispec.Descriptor
	// whole are the blobs that belong to the bundle.
	whole map[digest.Digest]bool

	mu       sync.Mutex
	progress Progress
}

// found is a manifest at the place that it came from.
type found struct {
	from       Source
	repository string
	desc       ocispec.Descriptor
}

func (c *collector) image(ctx context.Context, ref string) error {
	at, err := c.find(ctx, c.Sources, ref)
	if err != nil {
		return err
	}
	if layout.IsSignatureTag(ref) {
		return errors.New("this is a signature; name the image, and its signatures come along")
	}
	c.entry(ref, plain(at.desc))
	return c.fetch(ctx, at)
}

// artifact brings in one that is no image. It is for whatever machine it is for.
func (c *collector) artifact(ctx context.Context, a Artifact) error {
	sources := a.Sources
	if sources == nil {
		sources = c.Sources
	}
	at, err := c.find(ctx, sources, a.Reference)
	if err != nil {
		return err
	}
	data, err := c.manifest(ctx, at)
	if err != nil {
		return err
	}
	m, err := layout.DecodeManifest(data, at.desc)
	if err != nil {
		return err
	}
	if m.Config.MediaType != a.Type {
		return fmt.Errorf("%s is %q and not %q", at.desc.Digest, m.Config.MediaType, a.Type)
	}
	if err := c.content(ctx, at, data, false); err != nil {
		return err
	}
	desc := plain(at.desc)
	desc.ArtifactType = a.Type
	c.entry(a.Reference, desc)
	return c.attached(ctx, at, 0)
}

// find asks sources in order.
func (c *collector) find(ctx context.Context, sources []Source, ref string) (found, error) {
	repository, err := repositoryOf(ref)
	if err != nil {
		return found{}, err
	}
	err = errors.New("there is neither a registry nor a directory to take it from")
	_, wanted, byDigest := strings.Cut(ref, "@")
	for _, s := range sources {
		desc, failed := s.Resolve(ctx, ref)
		if failed == nil && byDigest && desc.Digest.String() != wanted {
			failed = fmt.Errorf("a source takes %s for it", desc.Digest)
		}
		if failed == nil {
			return found{s, repository, desc}, nil
		}
		if err = failed; ctx.Err() != nil {
			break
		}
	}
	return found{}, err
}

// fetch brings in an image, or a list of them, and what is attached.
func (c *collector) fetch(ctx context.Context, at found) error {
	data, err := c.manifest(ctx, at)
	if err != nil {
		return err
	}
	switch {
	case layout.IsIndex(at.desc.MediaType):
		err = c.platforms(ctx, at, data)
	case layout.IsManifest(at.desc.MediaType):
		err = c.content(ctx, at, data, true)
	default:
		err = fmt.Errorf("%s is no image but %q", at.desc.Digest, at.desc.MediaType)
	}
	if err != nil {
		return err
	}
	return c.attached(ctx, at, 0)
}

// platforms brings in those images of a list that are wanted. The list itself
// stays as it is: it is what was signed.
func (c *collector) platforms(ctx context.Context, at found, data []byte) error {
	index, err := layout.DecodeImageIndex(data, at.desc)
	if err != nil {
		return err
	}
	chosen, have := map[digest.Digest]bool{}, []string{}
	for _, d := range index.Manifests {
		switch {
		case wants(c.Platforms, d.Platform) && !layout.IsIndex(d.MediaType):
			chosen[d.Digest] = true
		case d.Platform != nil:
			have = append(have, platformText(*d.Platform))
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("is for %s, and the bundle is for %s; name another platform with --platform", strings.Join(have, ", "), c.annotations()[AnnotationPlatforms])
	}
	for _, d := range index.Manifests {
		if !chosen[d.Digest] && !chosen[digest.Digest(d.Annotations[dockerReference])] {
			continue
		}
		child := found{at.from, at.repository, d}
		data, err := c.manifest(ctx, child)
		if err != nil {
			return err
		}
		if err := c.content(ctx, child, data, chosen[d.Digest]); err != nil {
			return err
		}
		if err := c.attached(ctx, child, 0); err != nil {
			return err
		}
	}
	return nil
}

// manifest brings in a manifest and returns it.
func (c *collector) manifest(ctx context.Context, at found) ([]byte, error) {
	data, err := at.from.Manifest(ctx, at.repository, at.desc)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(data); got != at.desc.Digest {
		return nil, &CorruptError{at.desc.Digest, fmt.Errorf("content hashes to %s", got)}
	}
	desc, err := c.blobs.Put(at.desc.MediaType, data)
	c.keep(desc)
	return data, err
}

// content brings in the blobs of a manifest. Of an image, the platform is
// compared with what the bundle is for.
func (c *collector) content(ctx context.Context, at found, data []byte, isImage bool) error {
	m, err := layout.DecodeManifest(data, at.desc)
	if err != nil {
		return err
	}
	if err := c.blob(ctx, at, m.Config); err != nil {
		return err
	}
	if isImage {
		if err := c.checkPlatform(m.Config); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, d := range m.Layers {
		if c.Base.has(d.Digest) {
			continue
		}
		group.Go(func() error { return c.blob(ctx, at, d) })
	}
	return group.Wait()
}

// checkPlatform refuses an image that would not run where the bundle goes.
func (c *collector) checkPlatform(config ocispec.Descriptor) error {
	data, err := (&layout.Layout{Dir: c.blobs.Dir}).ReadBlob(config)
	if err != nil {
		return err
	}
	var p ocispec.Platform
	if err := json.Unmarshal(data, &p); err != nil || p.Architecture == "" {
		return nil //nolint:nilerr // an artifact with a configuration of its own kind
	}
	if !wants(c.Platforms, &p) {
		return fmt.Errorf("is for %s, and the bundle is for %s; name another platform with --platform", platformText(p), c.annotations()[AnnotationPlatforms])
	}
	return nil
}

func (c *collector) blob(ctx context.Context, at found, desc ocispec.Descriptor) error {
	if desc.Size > maxBlob {
		return fmt.Errorf("blob %s has %d GiB, more than %d", desc.Digest, desc.Size>>30, maxBlob>>30)
	}
	err := c.blobs.Take(ctx, desc, func(offset int64) (io.ReadCloser, error) {
		return at.from.Blob(ctx, at.repository, desc, offset)
	}, c.read)
	c.keep(desc)
	return err
}

// attached brings in what refers to a manifest.
func (c *collector) attached(ctx context.Context, at found, depth int) error {
	if depth == maxDepth {
		return nil
	}
	tag := at.repository + ":" + at.desc.Digest.Algorithm().String() + "-" + at.desc.Digest.Encoded()
	for _, suffix := range attachments {
		desc, err := at.from.Resolve(ctx, tag+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			c.entry(tag+suffix, plain(desc))
			err = c.attachment(ctx, found{at.from, at.repository, desc}, depth)
		}
		if err != nil {
			return fmt.Errorf("what is attached as %s: %w", tag+suffix, err)
		}
	}
	list, err := at.from.Referrers(ctx, at.repository, at.desc.Digest)
	if err != nil {
		return fmt.Errorf("what refers to %s: %w", at.desc.Digest, err)
	}
	for _, d := range list {
		child := found{at.from, at.repository, d}
		if err := c.attachment(ctx, child, depth); err != nil {
			return fmt.Errorf("what refers to %s: %w", at.desc.Digest, err)
		}
		entry := plain(d)
		entry.ArtifactType = d.ArtifactType
		if entry.ArtifactType == "" {
			entry.ArtifactType = ocispec.MediaTypeEmptyJSON
		}
		entry.Annotations = map[string]string{AnnotationSubject: at.desc.Digest.String()}
		c.entry("", entry)
	}
	return nil
}

func (c *collector) attachment(ctx context.Context, at found, depth int) error {
	data, err := c.manifest(ctx, at)
	if err != nil {
		return err
	}
	if err := c.content(ctx, at, data, false); err != nil {
		return err
	}
	return c.attached(ctx, at, depth+1)
}

func (c *collector) entry(name string, desc ocispec.Descriptor) {
	if name != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	c.entries[name+" "+desc.Digest.String()] = desc
}

// keep notes blobs that belong to the bundle.
func (c *collector) keep(all ...ocispec.Descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range all {
		c.whole[d.Digest] = true
	}
}

func (c *collector) read(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.progress.Read += n; c.Progress != nil {
		c.Progress(c.progress)
	}
}
