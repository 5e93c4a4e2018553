package bundle

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
)

// Types of the artifact that carries the repository.
const (
	// GitArtifact is the artifact type, GitMedia the type of its only layer, a
	// file as gitformat-bundle(5) describes it.
	GitArtifact = "application/vnd.bothy.git.v1"
	GitMedia    = "application/vnd.bothy.git.bundle.v2"
)

// Annotations of a bundle's index.
const (
	// AnnotationVersion is the version of the format, "1".
	AnnotationVersion = "dev.bothy.bundle.version"
	// AnnotationCommit and AnnotationSite say what the bundle is for.
	AnnotationCommit = "dev.bothy.bundle.commit"
	AnnotationSite   = "dev.bothy.bundle.site"
	// AnnotationPlatforms are the platforms, such as "linux/amd64 linux/arm64".
	AnnotationPlatforms = "dev.bothy.bundle.platforms"
	// AnnotationBase is the digest of the index of the bundle that this one
	// builds on; AnnotationBaseCommit is its commit.
	AnnotationBase       = "dev.bothy.bundle.base"
	AnnotationBaseCommit = "dev.bothy.bundle.base.commit"
	// AnnotationSubject, of a descriptor, is the digest that an artifact refers to.
	AnnotationSubject = "dev.bothy.subject"
)

const formatVersion = "1"

// Index is what a bundle's index.json says.
type Index struct {
	*layout.Layout
	// Digest is that of index.json: it names the bundle.
	Digest digest.Digest
	// Commit, Site, Base and BaseCommit are empty if the bundle has none.
	Commit, Site, Base, BaseCommit string
	// Platforms is empty for a layout that was not made as a bundle.
	Platforms []ocispec.Platform
	raw       *ocispec.Index
}

// DecodeIndex decodes the index.json of a bundle, or of any image layout, in
// dir, which may be empty if the blobs are not on disk.
func DecodeIndex(r io.Reader, dir string) (*Index, error) {
	hash := digest.SHA256.Digester()
	raw, err := layout.DecodeIndex(io.TeeReader(r, hash.Hash()), dir+"/index.json")
	if err != nil {
		return nil, err
	}
	l, err := layout.FromIndex(dir, raw)
	if err != nil {
		return nil, err
	}
	a := raw.Annotations
	if v := a[AnnotationVersion]; v != "" && v != formatVersion {
		return nil, fmt.Errorf("the bundle has version %s of the format, this program knows %s: use a newer program", v, formatVersion)
	}
	i := &Index{Layout: l, Digest: hash.Digest(), Commit: a[AnnotationCommit], Site: a[AnnotationSite], Base: a[AnnotationBase], BaseCommit: a[AnnotationBaseCommit], raw: raw}
	if i.Commit != "" && !isCommit(i.Commit) {
		return nil, fmt.Errorf("the bundle is said to be of commit %q, which is no id of a commit", i.Commit)
	}
	if i.Platforms, err = ParsePlatforms(strings.Fields(a[AnnotationPlatforms])); err != nil {
		return nil, err
	}
	return i, nil
}

func isCommit(id string) bool {
	return (len(id) == 40 || len(id) == 64) && strings.Trim(id, "0123456789abcdef") == ""
}

// ParsePlatforms reads platforms of the form os/architecture[/variant].
func ParsePlatforms(texts []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, t := range texts {
		parts := strings.Split(t, "/")
		if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
			return nil, fmt.Errorf("platform %q: write os/architecture, such as linux/arm64", t)
		}
		p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
		if len(parts) == 3 {
			p.Variant = parts[2]
		}
		out = append(out, p)
	}
	return out, nil
}

func platformText(p ocispec.Platform) string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// wants reports whether an image for p belongs into a bundle for platforms.
func wants(platforms []ocispec.Platform, p *ocispec.Platform) bool {
	return p != nil && slices.ContainsFunc(platforms, func(w ocispec.Platform) bool {
		return w.OS == p.OS && w.Architecture == p.Architecture && (w.Variant == "" || w.Variant == p.Variant)
	})
}

// newIndex is an index with the entries in an order that depends on nothing but
// them.
func newIndex(annotations map[string]string, entries []ocispec.Descriptor) *ocispec.Index {
	slices.SortFunc(entries, func(a, b ocispec.Descriptor) int {
		x, y := a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName]
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
		return strings.Compare(a.Digest.String(), b.Digest.String())
	})
	return &ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: entries, Annotations: annotations,
	}
}

// signedBy returns the digest that a tag of signatures is about.
func signedBy(name string) (digest.Digest, bool) {
	if !layout.IsSignatureTag(name) {
		return "", false
	}
	_, tag, _ := strings.Cut(name[strings.LastIndexByte(name, ':'):], "sha256-")
	hex, _, _ := strings.Cut(tag, ".")
	return digest.NewDigestFromEncoded(digest.SHA256, hex), true
}

// SubjectOf returns the digest that a signature, attestation or other artifact
// in an index is about; empty if it says none.
func SubjectOf(d ocispec.Descriptor) digest.Digest {
	if s, ok := signedBy(d.Annotations[ocispec.AnnotationRefName]); ok {
		return s
	}
	return digest.Digest(d.Annotations[AnnotationSubject])
}
