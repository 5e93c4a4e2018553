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

// history reads commits, trees and trust roots, and keeps those used lately. It
// belongs to one goroutine.
type history struct {
	objects Objects
	commits *cache[*signers.Commit]
	trees   *cache[[]mirror.Entry]
	roots   *cache[*root] // by blob id
}

// The limits of the caches: commits by the bytes that were signed, trees by
// their entries, trust roots by their number.
const (
	maxCommitBytes = 1 << 20
	maxTreeEntries = 20_000
	maxRoots       = 16
)

// root is a decoded trust root with its keys.
type root struct {
	spec  *v1alpha1.TrustRoot
	ring  *signers.Keyring
	yaml  []byte
	canon string
	err   error
}

func newHistory(objects Objects) *history {
	return &history{
		objects: objects,
		commits: newCache[*signers.Commit](maxCommitBytes),
		trees:   newCache[[]mirror.Entry](maxTreeEntries),
		roots:   newCache[*root](maxRoots),
	}
}

// commit reads and parses a commit. A malformed object is a *signers.Error.
func (h *history) commit(id string) (*signers.Commit, error) {
	if c, ok := h.commits.get(id); ok {
		return c, nil
	}
	c, err := readCommit(h.objects, id)
	if err != nil {
		return nil, err
	}
	h.keep(id, c)
	return c, nil
}

func (h *history) keep(id string, c *signers.Commit) {
	h.commits.put(id, c, len(c.Payload)+len(c.Signature))
}

func readCommit(objects Objects, id string) (*signers.Commit, error) {
	raw, err := objects.Object(mirror.CommitObject, id)
	if err != nil {
		return nil, err
	}
	return signers.ParseCommit(raw)
}

func (h *history) tree(id string) ([]mirror.Entry, error) {
	if entries, ok := h.trees.get(id); ok {
		return entries, nil
	}
	entries, err := h.objects.Tree(id)
	if err != nil {
		return nil, err
	}
	h.trees.put(id, entries, 1+len(entries))
	return entries, nil
}

// lookup finds the entry at path below tree; nil if there is none.
func (h *history) lookup(tree, path string) (*mirror.Entry, error) {
	name, rest, deeper := strings.Cut(path, "/")
	entries, err := h.tree(tree)
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
	if r, ok := h.roots.get(e.ID); ok {
		return r, r.err
	}
	data, err := h.objects.Object(mirror.BlobObject, e.ID)
	if err != nil {
		return nil, err
	}
	spec, err := v1alpha1.DecodeTrustRoot(RootPath, data)
	if err != nil {
		err = fmt.Errorf("has an unusable trust root: %w", err)
		h.roots.put(e.ID, &root{err: err}, 1)
		return nil, err
	}
	r, err := newRoot(spec)
	if err != nil {
		err = fmt.Errorf("has an unusable trust root: %s: %w", RootPath, err)
		h.roots.put(e.ID, &root{err: err}, 1)
		return nil, err
	}
	r.yaml = data
	h.roots.put(e.ID, r, 1)
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
		for _, text := range []*string{&s.PublicKey, &s.CertificateAuthorities, &s.TrustedRoot, &s.TransparencyLogKeys, &s.TimestampAuthorities} {
			*text = strings.TrimSpace(*text)
		}
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
