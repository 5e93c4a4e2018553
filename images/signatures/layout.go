package signatures

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/cosign"
)

const (
	// kindAnnotation is how `cosign save` marks what an entry of its index is.
	kindAnnotation = "kind"
	// maxSmall bounds manifests that are read to see what they refer to: those of
	// signatures are small.
	maxSmall = 1 << 20
)

// savedKinds are the values of kindAnnotation for the suffixes of tags.
var savedKinds = map[string]string{".sig": "dev.cosignproject.cosign/sigs", ".att": "dev.cosignproject.cosign/atts"}

// LayoutRepository finds the signatures of an OCI layout. It serves any number of digests;
// it is not safe for concurrent use.
type LayoutRepository struct {
	layout   *layout.Layout
	entries  []ocispec.Descriptor
	byDigest map[string]ocispec.Descriptor
	// referrers are the small manifests by the digest they refer to; nil until
	// somebody asks.
	referrers map[string][]ocispec.Descriptor
	// unread is what could not be read then.
	unread error
}

// Layout returns the repository of signatures in an OCI layout.
func Layout(l *layout.Layout) (*LayoutRepository, error) {
	entries, err := l.Entries()
	if err != nil {
		return nil, err
	}
	r := &LayoutRepository{layout: l, entries: entries, byDigest: map[string]ocispec.Descriptor{}}
	for _, e := range entries {
		r.byDigest[e.Digest.String()] = e
	}
	return r, nil
}

var _ cosign.Repository = (*LayoutRepository)(nil)

// signatureTag is a tag by which cosign attaches things to a digest.
var signatureTag = regexp.MustCompile(`(^|:)sha256-[0-9a-f]{64}(\.[a-z]+)?$`)

// IsSignature says that an entry of a layout is attached to an image, and none
// itself, by its name.
func IsSignature(name string) bool { return signatureTag.MatchString(name) }

// Manifest returns a manifest by digest, or by the tag of signatures.
func (r *LayoutRepository) Manifest(_ context.Context, reference string) ([]byte, error) {
	if d, err := digest.Parse(reference); err == nil {
		desc, ok := r.byDigest[d.String()]
		if !ok {
			return nil, cosign.ErrNotFound
		}
		return r.read(desc)
	}
	desc, ok := r.tagged(reference)
	if !ok {
		return nil, cosign.ErrNotFound
	}
	return r.read(desc)
}

// tagged finds the entry with a tag, alone or at the end of a name. A layout
// that cosign saved has one image and no tags.
func (r *LayoutRepository) tagged(tag string) (ocispec.Descriptor, bool) {
	for _, e := range r.entries {
		if name := e.Annotations[ocispec.AnnotationRefName]; name == tag || strings.HasSuffix(name, ":"+tag) {
			return e, true
		}
		if name := e.Annotations[containerdName]; strings.HasSuffix(name, ":"+tag) {
			return e, true
		}
	}
	for suffix, kind := range savedKinds {
		for _, e := range r.entries {
			if strings.HasSuffix(tag, suffix) && e.Annotations[kindAnnotation] == kind {
				return e, true
			}
		}
	}
	return ocispec.Descriptor{}, false
}

// containerdName is how containerd's exporter names an image.
const containerdName = "io.containerd.image.name"

// Blob returns the content of a signature.
func (r *LayoutRepository) Blob(_ context.Context, text string) ([]byte, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return nil, err
	}
	return r.layout.ReadSmall(d, maxSmall*4)
}

// Referrers returns the manifests whose subject is a digest.
func (r *LayoutRepository) Referrers(_ context.Context, of, _ string) ([]string, error) {
	if r.referrers == nil {
		r.index()
	}
	var out []string
	for _, d := range r.referrers[of] {
		out = append(out, d.Digest.String())
	}
	if len(out) == 0 { // what cannot be read may have been the one
		return nil, r.unread
	}
	return out, nil
}

// index reads the small manifests of the layout for what they refer to. A layout
// without support for referrers lists them in an index with the tag sha256-<hex>.
func (r *LayoutRepository) index() {
	r.referrers = map[string][]ocispec.Descriptor{}
	var unread []error
	for _, e := range r.entries {
		if e.Size > maxSmall {
			continue
		}
		if err := r.indexEntry(e); err != nil {
			unread = append(unread, err)
		}
	}
	r.unread = errors.Join(unread...)
}

func (r *LayoutRepository) indexEntry(e ocispec.Descriptor) error {
	data, err := r.read(e)
	if err != nil {
		return err
	}
	var m struct {
		Subject   *ocispec.Descriptor  `json:"subject"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("manifest %s: %w", e.Digest, err)
	}
	if m.Subject != nil {
		r.refer(m.Subject.Digest.String(), e)
	}
	if hex, ok := strings.CutPrefix(lastTag(e), "sha256-"); ok && len(hex) == 64 {
		for _, d := range m.Manifests {
			r.refer("sha256:"+hex, d)
		}
	}
	return nil
}

func (r *LayoutRepository) refer(subject string, d ocispec.Descriptor) {
	r.byDigest[d.Digest.String()] = d
	r.referrers[subject] = append(r.referrers[subject], d)
}

func lastTag(d ocispec.Descriptor) string {
	name := d.Annotations[ocispec.AnnotationRefName]
	return name[strings.LastIndex(name, ":")+1:]
}

func (r *LayoutRepository) read(d ocispec.Descriptor) ([]byte, error) {
	data, err := r.layout.ReadBlob(d)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", cosign.ErrNotFound, err)
	}
	return data, err
}
