package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob opens a blob of a repository from an offset. A connection that breaks is
// made again and goes on where it was; another place with the blob may go on
// with what one began. Read from its beginning, the stream ends with an error unless
// it hashes to the digest; read from an offset, whoever has the beginning checks
// the whole. The stream never has more bytes than the descriptor says.
func (c *Client) Blob(ctx context.Context, repository string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	repo, err := name.NewRepository(repository)
	if err != nil {
		return nil, err
	}
	b := &blob{client: c, ctx: ctx, repo: repo, desc: desc, at: offset}
	if offset == 0 {
		b.check = desc.Digest.Verifier()
	}
	// What is not there is said now and not in the middle of a copy.
	if offset < desc.Size {
		if err := b.open(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// blob is a stream over as many connections as it takes.
type blob struct {
	client *Client
	ctx    context.Context
	repo   name.Repository
	desc   ocispec.Descriptor
	check  digest.Verifier // nil if the beginning was read elsewhere

	at      int64
	body    io.ReadCloser
	from    string
	barren  int   // attempts in a row that brought no byte
	lastErr error // why the last of them failed
}

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.at == b.desc.Size {
			return 0, b.end()
		}
		if b.body == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.desc.Size-b.at)])
		if n > 0 {
			b.at += int64(n)
			b.barren = 0
			if b.check != nil {
				_, _ = b.check.Write(p[:n]) // a hash takes everything
			}
		}
		if err != nil {
			b.drop(err)
		}
		if n > 0 {
			return n, nil
		}
		if b.ctx.Err() != nil {
			return 0, b.ctx.Err()
		}
	}
}

// end is the end of the stream: io.EOF if it is what it should be.
func (b *blob) end() error {
	if b.check != nil && !b.check.Verified() {
		return &contentError{fmt.Sprintf("%s sent content for %s that does not hash to it", b.from, b.desc.Digest)}
	}
	return io.EOF
}

// drop gives a connection up.
func (b *blob) drop(err error) {
	b.body.Close()
	b.body = nil
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if b.at < b.desc.Size {
		b.lastErr = fmt.Errorf("%s broke off after %d of %d bytes: %w", b.from, b.at, b.desc.Size, err)
	}
}

// reopen goes on after a connection broke, unless that keeps bringing nothing.
func (b *blob) reopen() error {
	if b.barren++; b.barren > b.client.cfg.Attempts {
		return b.lastErr
	}
	b.client.cfg.Log.Info("registry: going on", "blob", b.desc.Digest.String(), "from", b.at, "err", b.lastErr)
	if b.barren > 1 {
		if err := b.client.pause(b.ctx, b.barren-1, 0); err != nil {
			return err
		}
	}
	return b.open()
}

// open asks the places in order for the rest of the blob.
func (b *blob) open() error {
	c := b.client
	places, err := c.places(b.repo)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err = c.persist(b.ctx, func() error { return b.openAt(p) }); err == nil || b.ctx.Err() != nil {
			return err
		}
		c.cfg.Log.Debug("registry", "place", p.text(), "blob", b.desc.Digest.String(), "err", err)
	}
	return fmt.Errorf("blob %s of %s: %w", b.desc.Digest, b.repo.Name(), err)
}

func (b *blob) openAt(place place) error {
	h, err := b.client.connect(b.ctx, place, b.repo)
	if err != nil {
		return err
	}
	header := http.Header{}
	if b.at > 0 {
		// Not every registry takes a range without an end.
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.at, b.desc.Size-1))
	}
	resp, err := h.get(b.ctx, b.repo, "blobs/"+b.desc.Digest.String(), header, b.client.cfg.UserAgent)
	if err != nil {
		return err
	}
	body := io.Reader(&limited{ctx: b.ctx, from: resp.Body, limiter: b.client.limiter})
	if err := b.position(resp, body); err != nil {
		resp.Body.Close()
		return err
	}
	b.from = h.base.Host
	b.body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return nil
}

// position brings a body to where the stream is. A registry that does not know
// ranges sends everything again.
func (b *blob) position(resp *http.Response, body io.Reader) error {
	if resp.StatusCode == http.StatusPartialContent {
		var first int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first != b.at {
			return &contentError{fmt.Sprintf("%s sent the range %q when asked for what follows byte %d", resp.Request.URL.Host, resp.Header.Get("Content-Range"), b.at)}
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
		return &contentError{fmt.Sprintf("%s has %d bytes for %s, which has %d", resp.Request.URL.Host, resp.ContentLength, b.desc.Digest, b.desc.Size)}
	}
	_, err := io.CopyN(io.Discard, body, b.at)
	return err
}

// Close implements io.Closer.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}
