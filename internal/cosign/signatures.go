package cosign

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bounds on what is attached to one digest.
const (
	// maxSignatures bounds how many attachments of a kind are looked at.
	maxSignatures = 50
	// maxAttached bounds all of them together, in bytes.
	maxAttached = 32 << 20
)

// Signatures is what is attached to a digest: signatures and attestations in
// every format of cosign. It is evidence and proves nothing until a [Policy] is
// asked. It can be kept as JSON and carried to where the artifact runs.
type Signatures struct {
	// Digest is what they are attached to ("sha256:<hex>"). Each says itself
	// what it is about, and is believed in nothing else.
	Digest string `json:"digest"`
	// Bundles are Sigstore bundles, signatures and attestations alike.
	Bundles []Attached `json:"bundles,omitempty"`
	// Payloads are the layers behind the tag sha256-<hex>.sig, Envelopes those
	// behind sha256-<hex>.att.
	Payloads  []Attached `json:"payloads,omitempty"`
	Envelopes []Attached `json:"envelopes,omitempty"`
	// Omitted says what was too much to look at.
	Omitted []string `json:"omitted,omitempty"`
}

// Attached is one attachment.
type Attached struct {
	// Name is a digest that tells attachments apart in messages.
	Name string `json:"name"`
	// Content is the bundle, the payload that was signed, or the envelope.
	Content []byte `json:"content"`
	// Annotations hold the signature of a payload and what proves it.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Empty says that nothing is attached.
func (s *Signatures) Empty() bool {
	return s == nil || len(s.Bundles)+len(s.Payloads)+len(s.Envelopes) == 0
}

// Merge adds what other has and s lacks.
func (s *Signatures) Merge(other *Signatures) {
	if other == nil {
		return
	}
	s.Bundles = merged(s.Bundles, other.Bundles)
	s.Payloads = merged(s.Payloads, other.Payloads)
	s.Envelopes = merged(s.Envelopes, other.Envelopes)
}

func merged(have, more []Attached) []Attached {
	for _, m := range more {
		same := func(a Attached) bool {
			return a.Name == m.Name && string(a.Content) == string(m.Content) && maps.Equal(a.Annotations, m.Annotations)
		}
		if !slices.ContainsFunc(have, same) && len(have) < maxSignatures {
			have = append(have, m)
		}
	}
	return have
}

// Collect reads what is attached to digest ("sha256:<hex>"). With an error, which
// says what could not be read, it returns what could.
func Collect(ctx context.Context, r Repository, digest string) (*Signatures, error) {
	if _, err := digestBytes(digest); err != nil {
		return nil, err
	}
	c := &collector{repository: r, found: &Signatures{Digest: digest}}
	c.bundles(ctx)
	tag := "sha256-" + strings.TrimPrefix(digest, sha256Prefix)
	c.found.Payloads = c.layers(ctx, tag+".sig", payloadType)
	c.found.Envelopes = c.layers(ctx, tag+".att", envelopeType)
	if ctx.Err() != nil {
		return c.found, ctx.Err()
	}
	if len(c.unread) > 0 {
		return c.found, fmt.Errorf("read signatures of %s: %w", digest, errors.Join(c.unread...))
	}
	return c.found, nil
}

// collector reads what is attached to one digest.
type collector struct {
	repository Repository
	found      *Signatures
	size       int
	unread     []error
}

// missed notes what could not be read. What is not there is not missed.
func (c *collector) missed(err error) {
	if !errors.Is(err, ErrNotFound) {
		c.unread = append(c.unread, err)
	}
}

// bundles reads what refers to the digest.
func (c *collector) bundles(ctx context.Context) {
	referrers, err := c.repository.Referrers(ctx, c.found.Digest, bundleType)
	if err != nil {
		c.missed(err)
		return
	}
	for i, referrer := range referrers {
		if i == maxSignatures {
			c.omit("bundles", len(referrers))
			return
		}
		m, err := c.manifest(ctx, referrer)
		if err != nil {
			c.missed(err)
			continue
		}
		for _, l := range m.Layers {
			if l.MediaType != bundleType {
				continue
			}
			if data := c.blob(ctx, l.Digest); data != nil {
				c.found.Bundles = append(c.found.Bundles, Attached{Name: referrer, Content: data})
			}
			break
		}
	}
}

// layers reads the layers of a type behind a tag.
func (c *collector) layers(ctx context.Context, tag, mediaType string) (out []Attached) {
	m, err := c.manifest(ctx, tag)
	if err != nil {
		c.missed(err)
		return nil
	}
	for i, l := range m.Layers {
		if i == maxSignatures {
			c.omit(tag, len(m.Layers))
			break
		}
		if l.MediaType != mediaType {
			continue
		}
		if data := c.blob(ctx, l.Digest); data != nil {
			out = append(out, Attached{Name: l.Digest, Content: data, Annotations: l.Annotations})
		}
	}
	return out
}

func (c *collector) omit(what string, of int) {
	c.found.Omitted = append(c.found.Omitted, fmt.Sprintf("%s: only the first %d of %d were looked at", what, maxSignatures, of))
}

// blob reads the content of a layer; nil if that is not possible.
func (c *collector) blob(ctx context.Context, digest string) []byte {
	data, err := c.repository.Blob(ctx, digest)
	if err != nil {
		c.missed(err)
		return nil
	}
	if c.size += len(data); c.size > maxAttached {
		c.missed(fmt.Errorf("what is attached to %s is larger than %d MiB", c.found.Digest, maxAttached>>20))
		return nil
	}
	return data
}
