package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
)

// Source is a place with images. What it returns is checked by whoever uses it.
// What it does not have is fs.ErrNotExist.
type Source interface {
	// Resolve returns the descriptor of a full reference.
	Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error)
	// Manifest returns a manifest of a repository.
	Manifest(ctx context.Context, repository string, desc ocispec.Descriptor) ([]byte, error)
	// Blob opens a blob of a repository from an offset.
	Blob(ctx context.Context, repository string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
	// Referrers lists what refers to a manifest; nothing is no error.
	Referrers(ctx context.Context, repository string, subject digest.Digest) ([]ocispec.Descriptor, error)
}

// repositoryOf returns the repository of a full reference.
func repositoryOf(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", ref, err)
	}
	return named.Name(), nil
}

// Layout returns the images of an OCI layout directory as a source.
func Layout(l *layout.Layout) Source { return layoutSource{l} }

type layoutSource struct{ *layout.Layout }

func (s layoutSource) Resolve(_ context.Context, ref string) (ocispec.Descriptor, error) {
	_, wanted, byDigest := strings.Cut(ref, "@")
	repository, err := repositoryOf(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, list := range [][]layout.Image{s.Images, s.Artifacts} {
		for _, img := range list {
			if img.Name == ref {
				return plain(img.Descriptor), nil
			}
			if !byDigest || img.Descriptor.Digest.String() != wanted {
				continue
			}
			if of, err := repositoryOf(img.Name); err == nil && of == repository {
				return plain(img.Descriptor), nil
			}
		}
	}
	return ocispec.Descriptor{}, fmt.Errorf("image %s in %s: %w", ref, s.Dir, fs.ErrNotExist)
}

// LayoutByDigest returns an OCI layout directory as a source in which a digest is found whatever it is called
// there, and its signatures by their tags in whatever repository.
func LayoutByDigest(l *layout.Layout) Source { return digestSource{layoutSource{l}} }

type digestSource struct{ layoutSource }

func (s digestSource) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	entries, err := s.Entries()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	_, wanted, byDigest := strings.Cut(ref, "@")
	tag := ref[strings.LastIndexByte(ref, ':')+1:]
	for _, d := range entries {
		name := d.Annotations[ocispec.AnnotationRefName]
		if byDigest && d.Digest.String() == wanted || layout.IsSignatureTag(ref) && (name == tag || strings.HasSuffix(name, ":"+tag)) {
			return plain(d), nil
		}
	}
	return s.layoutSource.Resolve(ctx, ref)
}

func (s layoutSource) Manifest(_ context.Context, _ string, desc ocispec.Descriptor) ([]byte, error) {
	return s.ReadBlob(desc)
}

func (s layoutSource) Blob(_ context.Context, _ string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := s.OpenBlob(desc)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s layoutSource) Referrers(_ context.Context, _ string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, a := range s.Artifacts {
		if a.Name != "" || !layout.IsManifest(a.Descriptor.MediaType) {
			continue
		}
		data, err := s.ReadBlob(a.Descriptor)
		if err != nil {
			return nil, err
		}
		m, err := layout.DecodeManifest(data, a.Descriptor)
		if err != nil {
			return nil, err
		}
		if m.Subject != nil && m.Subject.Digest == subject {
			d := plain(a.Descriptor)
			d.ArtifactType = a.Descriptor.ArtifactType
			out = append(out, d)
		}
	}
	artifacts, subjects := s.Referring()
	for i, a := range artifacts {
		if subjects[i] == subject {
			out = append(out, a.Descriptor)
		}
	}
	return out, nil
}

// plain drops what a descriptor says about its place in a layout.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
