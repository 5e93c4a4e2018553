package mirror

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// maxAdvertised bounds the list of references, which is held in memory.
const maxAdvertised = 16 << 20

// uploadPack is git's protocol for fetching (version 0), as it is spoken over
// any connection.
type uploadPack struct {
	caps *capability.List
}

// readAdvertised reads what a server says first.
func (u *uploadPack) readAdvertised(r io.Reader) (advertised, error) {
	refs := packp.NewAdvRefs()
	bounded := &io.LimitedReader{R: r, N: maxAdvertised}
	err := refs.Decode(bounded)
	switch {
	case bounded.N <= 0:
		return advertised{}, fmt.Errorf("%w: its list of references has more than %d MiB", ErrTooLarge, maxAdvertised>>20)
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return advertised{}, nil
	case errors.Is(err, packp.ErrEmptyInput):
		return advertised{}, transport.ErrRepositoryNotFound
	case err != nil:
		return advertised{}, fmt.Errorf("read its list of references: %w", plain(err))
	case len(refs.Shallows) > 0:
		return advertised{}, errShallow
	}
	for _, format := range refs.Capabilities.Get("object-format") {
		if format != "sha1" {
			return advertised{}, fmt.Errorf("its object format is %s, which is not supported yet; use a repository with SHA-1 object ids", format)
		}
	}
	u.caps = refs.Capabilities
	return advertised{refs: refs.References, peeled: refs.Peeled}, nil
}

var errShallow = errors.New("it is a shallow clone, whose history cannot be verified; point to the full repository")

// plain makes an error that may hold what a server sent fit for one line.
func plain(err error) error {
	const longest = 300
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, err.Error())
	if clean == err.Error() && len(clean) <= longest {
		return err
	}
	return &shortened{text: strings.ToValidUTF8(clean[:min(len(clean), longest)], ""), err: err}
}

type shortened struct {
	text string
	err  error
}

func (s *shortened) Error() string { return s.text }
func (s *shortened) Unwrap() error { return s.err }

// omits reports whether the server leaves out files on request and hands out
// single files by their ids, as all large hosts do.
func (u *uploadPack) omits() bool {
	return u.caps != nil && u.caps.Supports(capability.Filter) &&
		u.caps.Supports(capability.AllowTipSHA1InWant) && u.caps.Supports(capability.AllowReachableSHA1InWant)
}

// encode returns the request as it is sent.
func (u *uploadPack) encode(req request) ([]byte, error) {
	r := packp.NewUploadPackRequest()
	r.Wants, r.Haves = req.wants, req.haves
	for _, c := range []capability.Capability{capability.OFSDelta, capability.NoProgress, capability.Sideband64k, capability.ThinPack} {
		if u.caps.Supports(c) {
			if err := r.Capabilities.Set(c); err != nil {
				return nil, err
			}
		}
	}
	if err := r.Capabilities.Set(capability.Agent, "bothy"); err != nil {
		return nil, err
	}
	if req.bare {
		r.Filter = packp.FilterBlobNone()
		if err := r.Capabilities.Set(capability.Filter); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := r.UploadRequest.Encode(&b); err != nil {
		return nil, err
	}
	if err := r.UploadHaves.Encode(&b, false); err != nil {
		return nil, err
	}
	err := pktline.NewEncoder(&b).EncodeString("done\n")
	return b.Bytes(), err
}

// stage takes in the pack of an answer.
func (u *uploadPack) stage(ctx context.Context, m *Mirror, req request, answer io.Reader, watch *watchdog) ([]*staged, error) {
	in := bufio.NewReader(watch.count(answer))
	var acks packp.ServerResponse
	if err := acks.Decode(in, false); err != nil {
		return nil, fmt.Errorf("read its answer: %w", plain(err))
	}
	var r io.Reader = in
	if u.caps.Supports(capability.Sideband64k) {
		r = sideband.NewDemuxer(sideband.Sideband64k, in)
	}
	watch.paced.Store(true)
	defer watch.paced.Store(false)
	s, err := m.stage(ctx, r, req.bare || m.isPartial())
	if err != nil {
		return nil, plain(err)
	}
	return []*staged{s}, nil
}

// wanted reports the ids for messages.
func wanted(ids []plumbing.Hash) string {
	if len(ids) == 1 {
		return short(ids[0].String())
	}
	return fmt.Sprintf("%d objects", len(ids))
}
