package store

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/internal/durable"
)

// pinsFile says which commits need which images.
const pinsFile = "pins.json"

// Pins are what the site's commits need.
type Pins struct {
	// Current is the accepted commit, Previous the one that was accepted before
	// it, to which a site may be taken back. Either may be missing.
	Current  *Pin `json:"current,omitempty"`
	Previous *Pin `json:"previous,omitempty"`
}

// Pin is what one commit needs.
type Pin struct {
	Commit string `json:"commit"`
	// Images are full references.
	Images []string `json:"images"`
	// Artifacts are the references of what is no image to run, such as an operating system.
	Artifacts []string `json:"artifacts,omitempty"`
}

func (p *Pin) needs(name string) bool {
	return p != nil && (slices.Contains(p.Images, name) || slices.Contains(p.Artifacts, name))
}

// with adds what another, which may be nil, says of the same commit.
func (p *Pin) with(other *Pin) {
	if other == nil {
		return
	}
	p.Images, p.Artifacts = union(p.Images, other.Images), union(p.Artifacts, other.Artifacts)
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// Need reports whether a commit needs the image or artifact of that name.
func (p Pins) Need(name string) bool { return p.Current.needs(name) || p.Previous.needs(name) }

// Names are the images that are needed, sorted. They are containerd's to have; artifacts are not.
func (p Pins) Names() []string {
	var out []string
	for _, pin := range []*Pin{p.Current, p.Previous} {
		if pin != nil {
			out = append(out, pin.Images...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Pins reads which images are needed; before the first commit none are.
func (s *Store) Pins() (Pins, error) {
	var p Pins
	err := durable.ReadJSON(filepath.Join(s.dir, pinsFile), &p)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return p, err
}

// Advance notes that a commit was accepted and what it needs. What a
// bundle brought for it belongs to it from now on. Telling the same again
// changes nothing, and writes nothing.
func (s *Store) Advance(next Pin) error {
	p, err := s.Pins()
	if err != nil {
		return err
	}
	brought, err := s.brought()
	if err != nil {
		return err
	}
	next.with(&Pin{}) // in order
	next.with(brought[next.Commit])
	belongs := []string{next.Commit}
	if p.Current != nil && p.Current.Commit == next.Commit {
		next.with(p.Current)
		if slices.Equal(p.Current.Images, next.Images) && slices.Equal(p.Current.Artifacts, next.Artifacts) {
			return s.forget(brought, belongs)
		}
	} else {
		// Their bundles may have come after they were accepted.
		for _, pin := range []*Pin{p.Current, p.Previous} {
			if pin != nil {
				pin.with(brought[pin.Commit])
				belongs = append(belongs, pin.Commit)
			}
		}
		p.Previous = p.Current
	}
	p.Current = &next
	if err := durable.WriteJSON(filepath.Join(s.dir, pinsFile), p, 0o644); err != nil {
		return err
	}
	return s.forget(brought, belongs)
}

// brought returns what bundles brought, by the commits that they are for.
func (s *Store) brought() (map[string]*Pin, error) {
	i, err := s.Open()
	if err != nil {
		return nil, err
	}
	out := map[string]*Pin{}
	for _, img := range slices.Concat(i.Images, i.Standalone()) {
		commit := img.Descriptor.Annotations[annotationHeld]
		if commit == "" {
			continue
		}
		one := &Pin{Commit: commit, Images: []string{img.Name}}
		if layout.IsArtifact(img.Descriptor) {
			one.Images, one.Artifacts = nil, one.Images
		}
		one.with(out[commit])
		out[commit] = one
	}
	return out, nil
}

// forget ends the hold of bundles once their commits are written down as needing
// what they brought.
func (s *Store) forget(brought map[string]*Pin, commits []string) error {
	if !slices.ContainsFunc(commits, func(c string) bool { return brought[c] != nil }) {
		return nil
	}
	return s.change(func(entries []ocispec.Descriptor) []ocispec.Descriptor {
		for _, d := range entries {
			if slices.Contains(commits, d.Annotations[annotationHeld]) {
				delete(d.Annotations, annotationHeld)
			}
		}
		return entries
	})
}
