package endpoint

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// The services of smart HTTP.
const (
	receiveService = "git-receive-pack"
	uploadService  = "git-upload-pack"
)

const (
	// silence is how long a client may send or take nothing.
	silence = 30 * time.Second
	// longest is how long one push or fetch may take in all.
	longest = 15 * time.Minute
)

// capabilities are what the endpoint offers. Deleting is among them only so that
// the refusal can say why; thin packs are declined, so that what is pushed is
// whole.
func capabilities(service, branch string, known bool) (*capability.List, error) {
	list := capability.NewList()
	offer := []capability.Capability{capability.Sideband64k, capability.OFSDelta}
	if service == receiveService {
		offer = append(offer, capability.ReportStatus, capability.DeleteRefs, capability.PushOptions, capability.Quiet, "no-thin")
	} else {
		offer = append(offer, capability.MultiACKDetailed, capability.NoDone, capability.NoProgress)
		if known {
			if err := list.Add(capability.SymRef, "HEAD:refs/heads/"+branch); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range offer {
		if err := list.Add(c); err != nil {
			return nil, err
		}
	}
	return list, list.Set(capability.Agent, "bothy")
}

// advertise answers what git asks first: what is there, and what the server can
// do.
func (e *Endpoint) advertise(w http.ResponseWriter, r *http.Request, _ caller) {
	service := r.URL.Query().Get("service")
	if !isRepository(r) || (service != receiveService && service != uploadService) {
		http.Error(w, "this is a Git repository over smart HTTP; use git 1.6.6 or newer", http.StatusNotFound)
		return
	}
	branch, head := e.cfg.Acceptor.Head()
	refs := packp.NewAdvRefs()
	refs.Prefix = [][]byte{[]byte("# service=" + service), {}}
	var err error
	if refs.Capabilities, err = capabilities(service, branch, head != ""); err != nil {
		e.internal(w, "advertise", err)
		return
	}
	if head != "" {
		id := plumbing.NewHash(head)
		refs.References["refs/heads/"+branch] = id
		if service == uploadService {
			refs.Head = &id
		}
	}
	answer(w, service, "advertisement")
	if err := refs.Encode(w); err != nil {
		e.log.Debug("endpoint connection", "problem", err.Error())
	}
}

func isRepository(r *http.Request) bool { return strings.HasSuffix(r.PathValue("repository"), ".git") }

func answer(w http.ResponseWriter, service, kind string) {
	w.Header().Set("Content-Type", "application/x-"+service+"-"+kind)
	w.Header().Set("Cache-Control", "no-cache")
}

// internal reports a failure of this machine without its details.
func (e *Endpoint) internal(w http.ResponseWriter, what string, err error) {
	e.log.Error("endpoint", "doing", what, "err", err)
	http.Error(w, "this node failed to answer; its log says why", http.StatusInternalServerError)
}

// body is what the client sends: unpacked, of limited size, and cut off if it
// stalls. git compresses long requests.
func body(w http.ResponseWriter, r *http.Request, limit int64) (*limitedReader, error) {
	live := &liveness{control: http.NewResponseController(w), end: time.Now().Add(longest)}
	live.extend()
	raw := readFunc(func(p []byte) (int, error) {
		live.extend()
		return r.Body.Read(p)
	})
	switch r.Header.Get("Content-Encoding") {
	case "":
		return newLimited(raw, limit), nil
	case "gzip", "x-gzip":
		unpacked, err := gzip.NewReader(newLimited(raw, limit))
		if err != nil {
			return nil, fmt.Errorf("unpack the request: %w", err)
		}
		return newLimited(unpacked, limit), nil
	}
	return nil, fmt.Errorf("content encoding %q is not supported", r.Header.Get("Content-Encoding"))
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// errTooLarge says that a client sent more than its limit.
var errTooLarge = errors.New("too large")

// limitedReader fails, rather than ends, at its limit: what was cut off must not
// look whole.
type limitedReader struct {
	r           io.Reader
	left, limit int64
}

func newLimited(r io.Reader, limit int64) *limitedReader {
	return &limitedReader{r: r, left: limit, limit: limit}
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if err := l.exceeded(); err != nil {
		return 0, err
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if over := l.exceeded(); over != nil {
		return 0, over
	}
	return n, err
}

// exceeded returns an error if the limit was reached.
func (l *limitedReader) exceeded() error {
	if l.left >= 0 {
		return nil
	}
	return fmt.Errorf("%w: the limit is %d bytes", errTooLarge, l.limit)
}

// drain reads what is left, over the limit as well, without keeping it: a client
// that is still sending does not listen. It gives up after as much again.
func (l *limitedReader) drain() {
	_, _ = io.Copy(io.Discard, io.LimitReader(l.r, max(l.limit, defaultMaxPush)))
}

// liveness moves the deadlines of a connection while bytes flow.
type liveness struct {
	control *http.ResponseController
	end     time.Time
	next    time.Time
}

func (l *liveness) extend() {
	now := time.Now()
	if now.Before(l.next) {
		return
	}
	l.next = now.Add(time.Second)
	deadline := now.Add(silence)
	if deadline.After(l.end) {
		deadline = l.end
	}
	// A connection without deadlines, as in a test, goes on without.
	_ = l.control.SetReadDeadline(deadline)
	_ = l.control.SetWriteDeadline(deadline)
}
