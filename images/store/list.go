package store

import (
	"slices"

	"github.com/bothy-os/bothy/images/bundle"
)

// Kept is an image in the store, and why it is there.
type Kept struct {
	bundle.Listed
	// For are the commits that need it, with the word current, previous or
	// bundle: the last for what was imported and no commit needs yet.
	For []string `json:"for"`
}

// List lists the images in the store.
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
	for n, listed := range i.List().Images {
		k := Kept{Listed: listed}
		if held := i.Images[n].Descriptor.Annotations[annotationHeld]; held != "" {
			k.For = append(k.For, "bundle "+held)
		}
		for word, pin := range map[string]*Pin{"current": pins.Current, "previous": pins.Previous} {
			if pin != nil && slices.Contains(pin.Images, k.Name) {
				k.For = append(k.For, word+" "+pin.Commit)
			}
		}
		slices.Sort(k.For)
		out = append(out, k)
	}
	return out, nil
}
