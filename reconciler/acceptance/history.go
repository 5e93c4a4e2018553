package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// RootPath is where the trust root stands in the repository.
const RootPath = "trust/root.yaml"

// Objects reads Git objects and promises that their content matches their id.
type Objects interface {
	Object(t mirror.ObjectType, id string) ([]byte, error)
	Tree(id string) ([]mirror.Entry, error)
}

// history reads commits, trees and trust roots, each once.
type history struct {
	objects Objects
	commits map[string]*signers.Commit
	roots   map[string]*root // by blob id
}

// root is a decoded trust root with its keys.
type root struct {
	spec  *v1alpha1.TrustRoot
	ring  *signers.Keyring
	yaml  []byte
	canon string
	err   error
}

func newHistory(objects Objects) *history {
	return &history{objects: objects, commits: map[string]*signers.Commit{}, roots: map[string]*root{}}
}

// commit reads and parses a commit. A malformed object is a *signers.Error.
func (h *history) commit(id string) (*signers.Commit, error) {
	if c := h.commits[id]; c != nil {
		return c, nil
	}
	raw, err := h.objects.Object(mirror.CommitObject, id)
	if err != nil {
		return nil, err
	}
	c, err := signers.ParseCommit(raw)
	if err != nil {
		return nil, err
	}
	h.commits[id] = c
	return c, nil
}

// lookup finds the entry at path below tree; nil if there is none.
func (h *history) lookup(tree, path string) (*mirror.Entry, error) {
	name, rest, deeper := strings.Cut(path, "/")
	entries, err := h.objects.Tree(tree)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name != name {
			continue
		}
		switch {
		case !deeper:
			return &e, nil
		case e.Mode != mirror.ModeDir:
			return nil, nil
		}
		return h.lookup(e.ID, rest)
	}
	return nil, nil
}

var errNoRoot = errors.New("has no " + RootPath)

// rootAt returns the trust root in a commit's tree. The error says what is
// wrong with the file, as in "commit X <error>".
func (h *history) rootAt(c *signers.Commit) (*root, error) {
	e, err := h.lookup(c.Tree, RootPath)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, errNoRoot
	}
	if !e.Regular() {
		return nil, fmt.Errorf("has a %s that is not a regular file", RootPath)
	}
	if r := h.roots[e.ID]; r != nil {
		return r, r.err
	}
	data, err := h.objects.Object(mirror.BlobObject, e.ID)
	if err != nil {
		return nil, err
	}
	spec, err := v1alpha1.DecodeTrustRoot(RootPath, data)
	if err != nil {
		err = fmt.Errorf("has an unusable trust root: %w", err)
		h.roots[e.ID] = &root{err: err}
		return nil, err
	}
	r, err := newRoot(spec)
	if err != nil {
		err = fmt.Errorf("has an unusable trust root: %s: %w", RootPath, err)
		h.roots[e.ID] = &root{err: err}
		return nil, err
	}
	r.yaml = data
	h.roots[e.ID] = r
	return r, nil
}

func newRoot(spec *v1alpha1.TrustRoot) (*root, error) {
	ring, err := signers.NewKeyring(spec.Signers)
	if err != nil {
		return nil, err
	}
	return &root{spec: spec, ring: ring, canon: canonical(spec)}, nil
}

// canonical is the content of a root without what formatting may change.
func canonical(spec *v1alpha1.TrustRoot) string {
	c := *spec
	c.TypeMeta = v1alpha1.TypeMeta{}
	c.Signers = append([]v1alpha1.Signer(nil), spec.Signers...)
	for i := range c.Signers {
		s := &c.Signers[i]
		s.PublicKey = strings.TrimSpace(s.PublicKey)
		if s.NotBefore != nil {
			t := s.NotBefore.UTC()
			s.NotBefore = &t
		}
		if s.NotAfter != nil {
			t := s.NotAfter.UTC()
			s.NotAfter = &t
		}
	}
	c.Rules = append([]v1alpha1.Rule(nil), spec.Rules...)
	for i := range c.Rules {
		if c.Rules[i].Threshold == 0 {
			c.Rules[i].Threshold = 1
		}
	}
	text, err := json.Marshal(c)
	if err != nil { // plain strings and numbers always encode
		panic(err)
	}
	return string(text)
}
