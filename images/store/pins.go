package store

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/internal/durable"
)

// pinsFile says which commits need which images.
const pinsFile = "pins.json"

// Pins are the images that the site's commits need.
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
}

// Need reports whether a commit needs the image of that name.
func (p Pins) Need(name string) bool { return slices.Contains(p.Names(), name) }

// Names are the images that are needed, sorted.
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

// Advance notes that a commit was accepted and which images it needs. What a
// bundle brought for it belongs to it from now on. Telling the same again
// changes nothing, and writes nothing.
func (s *Store) Advance(commit string, images []string) error {
	p, err := s.Pins()
	if err != nil {
		return err
	}
	brought, err := s.broughtFor(commit)
	if err != nil {
		return err
	}
	next := &Pin{Commit: commit, Images: slices.Concat(images, brought)}
	if p.Current != nil && p.Current.Commit == commit {
		next.Images = append(next.Images, p.Current.Images...)
	} else {
		p.Previous = p.Current
	}
	slices.Sort(next.Images)
	next.Images = slices.Compact(next.Images)
	if p.Current != nil && p.Current.Commit == commit && slices.Equal(p.Current.Images, next.Images) {
		return s.forget(brought, commit)
	}
	p.Current = next
	if err := durable.WriteJSON(filepath.Join(s.dir, pinsFile), p, 0o644); err != nil {
		return err
	}
	return s.forget(brought, commit)
}

// broughtFor returns the names of what a commit's bundle brought.
func (s *Store) broughtFor(commit string) ([]string, error) {
	i, err := s.Open()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, img := range i.Images {
		if img.Descriptor.Annotations[annotationHeld] == commit {
			names = append(names, img.Name)
		}
	}
	return names, nil
}

// forget ends the hold of a bundle once its commit is written down as needing
// what it brought.
func (s *Store) forget(brought []string, commit string) error {
	if len(brought) == 0 {
		return nil
	}
	return s.change(func(entries []ocispec.Descriptor) []ocispec.Descriptor {
		for _, d := range entries {
			if d.Annotations[annotationHeld] == commit {
				delete(d.Annotations, annotationHeld)
			}
		}
		return entries
	})
}
