package store

import (
	"slices"

	"github.com/bothy-os/bothy/images/bundle"
)

// Kept is an image or artifact in the store, and why it is there.
type Kept struct {
	bundle.Listed
	// For are the commits that need it, with the word current, previous or
	// bundle: the last for what was imported and no commit needs yet.
	For []string `json:"for"`
}

// List lists the images in the store, and after them the artifacts.
func (s *Store) List() ([]Kept, error) {
	i, err := s.Open()
	if err != nil {
		return nil, err
	}
	pins, err := s.Pins()
	if err != nil {
		return nil, err
	}
	out := []Kept{}
	entries, list := slices.Concat(i.Images, i.Standalone()), i.List()
	for n, listed := range slices.Concat(list.Images, list.Artifacts) {
		k := Kept{Listed: listed}
		if held := entries[n].Descriptor.Annotations[annotationHeld]; held != "" {
			k.For = append(k.For, "bundle "+held)
		}
		for word, pin := range map[string]*Pin{"current": pins.Current, "previous": pins.Previous} {
			if pin.needs(k.Name) {
				k.For = append(k.For, word+" "+pin.Commit)
			}
		}
		slices.Sort(k.For)
		out = append(out, k)
	}
	return out, nil
}
