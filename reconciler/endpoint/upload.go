package endpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/bothy-os/bothy/reconciler/mirror"
)

// maxNegotiation bounds what a fetch sends, in bytes: some ten thousand commits.
const maxNegotiation = 1 << 20

// negotiation is one request of a fetch.
type negotiation struct {
	caps  *capability.List
	wants []string
	haves []string
	// flushes is how many batches of haves there were.
	flushes int
	done    bool
}

// readNegotiation reads the wants and haves of a fetch.
func readNegotiation(in io.Reader) (*negotiation, error) {
	n := &negotiation{caps: capability.NewList()}
	lines := pktline.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimSuffix(string(lines.Bytes()), "\n")
		if line == "" {
			n.flushes++
			continue
		}
		if line == "done" {
			n.done = true
			return n, n.check()
		}
		word, rest, _ := strings.Cut(line, " ")
		id, caps, _ := strings.Cut(rest, " ")
		if !plumbing.IsHash(id) {
			return nil, fmt.Errorf("line %q is not understood", line)
		}
		switch word {
		case "want":
			if len(n.wants) == 0 && caps != "" {
				if err := n.caps.Decode([]byte(caps)); err != nil {
					return nil, fmt.Errorf("capabilities: %w", err)
				}
			}
			n.wants = append(n.wants, id)
		case "have":
			n.haves = append(n.haves, id)
		default:
			return nil, fmt.Errorf("%q is not supported", word)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return n, n.check()
}

func (n *negotiation) check() error {
	if len(n.wants) == 0 {
		return errors.New("nothing is wanted")
	}
	return nil
}

// uploadPack serves a fetch.
func (e *Endpoint) uploadPack(w http.ResponseWriter, r *http.Request, who caller) {
	if !isRepository(r) {
		http.NotFound(w, r)
		return
	}
	in, err := body(w, r, maxNegotiation)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, err := readNegotiation(bufio.NewReader(in))
	if err != nil {
		http.Error(w, "this is not a fetch: "+err.Error(), http.StatusBadRequest)
		return
	}
	objects := e.cfg.Acceptor.Mirror()
	if objects == nil {
		http.Error(w, "the mirror is not open yet; try again in a moment", http.StatusServiceUnavailable)
		return
	}
	if err := e.permit(r.Context(), objects, n.wants); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	if !enter(r.Context(), e.serving) {
		return
	}
	defer leave(e.serving)
	answer(w, uploadService, "result")
	if err := upload(r.Context(), newStream(w, n.caps.Supports(capability.Sideband64k)), n, objects); err != nil {
		e.log.Warn("a fetch from the endpoint failed", "who", who.name, "from", who.from, "err", err)
	}
}

// permit lets the site's branch be fetched, and nothing that was pushed but
// refused. The branch may have moved between two requests of one fetch.
func (e *Endpoint) permit(ctx context.Context, objects *mirror.Mirror, wants []string) error {
	_, head := e.cfg.Acceptor.Head()
	for _, want := range wants {
		if want == head {
			continue
		}
		older, err := objects.IsAncestor(ctx, want, head)
		if err != nil || !older {
			return fmt.Errorf("commit %.12s is not on the site's branch; fetch again", want)
		}
	}
	return nil
}

// upload answers one request: which of the client's commits are known here, and
// then the pack of what it lacks.
func upload(ctx context.Context, out *stream, n *negotiation, objects *mirror.Mirror) error {
	var common []string
	for _, id := range n.haves {
		if objects.Has(id) {
			common = append(common, id)
		}
	}
	var ready bool
	err := out.plain(func(e *pktline.Encoder) (err error) {
		ready, err = acknowledge(e, n, common)
		return err
	})
	if err != nil || !ready {
		return err
	}
	return send(ctx, out, n, objects, common)
}

// acknowledge tells the client what is common. It reports whether the pack may
// follow.
func acknowledge(out *pktline.Encoder, n *negotiation, common []string) (ready bool, err error) {
	detailed := n.caps.Supports(capability.MultiACKDetailed)
	if !detailed {
		if len(common) > 0 {
			return n.done, out.Encodef("ACK %s\n", common[0])
		}
		return n.done, out.EncodeString("NAK\n")
	}
	for _, id := range common {
		if err := out.Encodef("ACK %s common\n", id); err != nil {
			return false, err
		}
	}
	if len(common) == 0 {
		return n.done, out.EncodeString("NAK\n")
	}
	last := common[len(common)-1]
	if n.done {
		return true, out.Encodef("ACK %s\n", last)
	}
	// A site's history is one line of merges: the first commit that both sides
	// have is as good as all that would follow.
	if err := out.Encodef("ACK %s ready\n", last); err != nil {
		return false, err
	}
	if err := out.EncodeString("NAK\n"); err != nil || !n.caps.Supports(capability.NoDone) {
		return false, err
	}
	return true, out.Encodef("ACK %s\n", last)
}

// send writes the pack. It may take a while until the first byte of it is
// known.
func send(ctx context.Context, out *stream, n *negotiation, objects *mirror.Mirror, common []string) error {
	stop := out.keepAlive()
	packets := bufio.NewWriterSize(out, pktline.MaxPayloadSize-1)
	err := objects.Pack(ctx, packets, n.wants, common)
	if err == nil {
		err = packets.Flush()
	}
	stop()
	if err != nil {
		out.fail("the node could not read its mirror; its log says why")
		return err
	}
	return out.end()
}
