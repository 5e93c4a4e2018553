// Package gitliar serves a repository over HTTP with git's own server, and in
// every way in which a Git server can be broken or lie. It is used by tests
// only.
package gitliar

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // the checksum of a pack
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Lie is what a server does wrong.
type Lie string

// The lies.
const (
	None Lie = ""
	// NotAPack answers with a web page where a pack should be.
	NotAPack Lie = "not a pack"
	// Truncated ends a pack in its middle.
	Truncated Lie = "truncated pack"
	// Flipped changes a byte of a pack.
	Flipped Lie = "flipped byte"
	// Endless sends objects for ever.
	Endless Lie = "endless pack"
	// Slow sends a byte now and then.
	Slow Lie = "slow pack"
	// Silent takes the request and says nothing.
	Silent Lie = "silence"
	// Invented announces a commit that it does not send.
	Invented Lie = "invented commit"
	// ManyReferences announces references for ever.
	ManyReferences Lie = "endless list of references"
	// Gap leaves out one object of a pack that is otherwise right.
	Gap Lie = "missing object"
	// DeltaBomb sends small deltas that make an object of many GiB.
	DeltaBomb Lie = "delta bomb"
	// DeltaChain sends a chain of deltas, each of which doubles the object.
	DeltaChain Lie = "chain of deltas"
	// BadZlib sends an object that cannot be inflated.
	BadZlib Lie = "bad zlib"
	// ZlibBomb sends an object that inflates to more than it says.
	ZlibBomb Lie = "zlib bomb"
	// RedirectLoop redirects to itself.
	RedirectLoop Lie = "redirect loop"
	// Unauthorized refuses the credentials.
	Unauthorized Lie = "unauthorized"
	// Failing answers with an internal error.
	Failing Lie = "internal error"
	// WebPage answers everything with a web page.
	WebPage Lie = "web page"
	// Scribble puts control characters and much text into an error message.
	Scribble Lie = "scribbled error"
)

// All lists the lies.
func All() []Lie {
	return []Lie{
		NotAPack, Truncated, Flipped, Endless, Slow, Silent, Invented, ManyReferences, Gap, DeltaBomb, DeltaChain,
		BadZlib, ZlibBomb, RedirectLoop, Unauthorized, Failing, WebPage, Scribble,
	}
}

// Server serves one repository.
type Server struct {
	*httptest.Server
	// URL of the repository.
	Repository string

	t       testing.TB
	dir     string
	lie     atomic.Value
	backend http.Handler
	done    chan struct{}
}

// New serves the repository in dir, with TLS if tls is true.
func New(t testing.TB, dir string, tls bool) *Server {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("git is not installed")
	}
	program := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(program); err != nil {
		t.Skip("git-http-backend is not installed")
	}
	s := &Server{t: t, dir: dir, done: make(chan struct{})}
	s.backend = &cgi.Handler{Path: program, Env: []string{
		"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "HOME=/nonexistent",
	}}
	s.Tell(None)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	s.Repository = s.Server.URL + "/.git"
	t.Cleanup(func() {
		close(s.done)
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// Tell makes the server tell a lie from now on.
func (s *Server) Tell(l Lie) { s.lie.Store(l) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	lie := s.lie.Load().(Lie)
	switch lie {
	case RedirectLoop:
		http.Redirect(w, r, r.URL.String(), http.StatusFound)
	case Unauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
	case Failing:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case WebPage:
		fmt.Fprint(w, "<html>Please log in</html>")
	default:
		if r.Method == http.MethodGet {
			s.announce(w, r, lie)
		} else {
			s.send(w, r, lie)
		}
	}
}

func (s *Server) announce(w http.ResponseWriter, r *http.Request, lie Lie) {
	const invented = "1234567890123456789012345678901234567890"
	switch lie {
	case Invented:
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		line(w, "# service=git-upload-pack\n")
		flush(w)
		line(w, invented+" refs/heads/main\x00side-band-64k ofs-delta\n")
		flush(w)
	case ManyReferences:
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		line(w, "# service=git-upload-pack\n")
		flush(w)
		line(w, invented+" refs/heads/a\x00side-band-64k ofs-delta\n")
		for i := 0; ; i++ {
			if _, err := fmt.Fprint(w, packet(fmt.Sprintf("%s refs/heads/b%s%09d\n", invented, strings.Repeat("x", 1000), i))); err != nil {
				return
			}
		}
	default:
		s.backend.ServeHTTP(w, r)
	}
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, lie Lie) {
	w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
	switch lie {
	case None, ManyReferences:
		s.backend.ServeHTTP(w, r)
	case Truncated, Flipped:
		rec := httptest.NewRecorder()
		s.backend.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if lie == Flipped {
			body[len(body)/2] ^= 0x10
		} else {
			body = body[:len(body)/2]
		}
		_, _ = w.Write(body)
	case Slow:
		s.slowly(w, r)
	case Silent:
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
	case NotAPack:
		line(w, "NAK\n")
		line(w, "\x01<html>Please log in</html>")
		flush(w)
	case Scribble:
		line(w, "NAK\n")
		line(w, "\x03\x1b[31m"+strings.Repeat("very sorry\n\t", 1000))
		flush(w)
	case Endless:
		s.endless(w)
	case Invented:
		answer(w, pack())
	case Gap:
		answer(w, s.packWithGap())
	default:
		answer(w, crafted(lie))
	}
}

// slowly sends a right answer, one byte at a time.
func (s *Server) slowly(w http.ResponseWriter, r *http.Request) {
	rec := httptest.NewRecorder()
	s.backend.ServeHTTP(rec, r)
	for _, b := range rec.Body.Bytes() {
		if _, err := w.Write([]byte{b}); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-time.After(50 * time.Millisecond):
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}

func (s *Server) endless(w http.ResponseWriter) {
	line(w, "NAK\n")
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), 1_000_000)
	line(w, "\x01"+string(head))
	many := packet("\x01" + strings.Repeat(string(entry(3, 1000, deflated(make([]byte, 1000)))), 1000))
	for {
		if _, err := fmt.Fprint(w, many); err != nil {
			return
		}
	}
}

// packWithGap packs everything but the newest commit's root directory.
func (s *Server) packWithGap() []byte {
	list, err := exec.Command("git", "-C", s.dir, "rev-list", "--objects", "main").Output()
	if err != nil {
		s.t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(string(list)), "\n")
	cmd := exec.Command("git", "-C", s.dir, "pack-objects", "--stdout", "-q")
	var ids strings.Builder
	left := false
	for _, l := range lines { // those of the newest commit come first
		id, path, isTree := strings.Cut(l, " ")
		if isTree && path == "" && !left {
			left = true
			continue
		}
		ids.WriteString(id + "\n")
	}
	cmd.Stdin = strings.NewReader(ids.String())
	out, err := cmd.Output()
	if err != nil {
		s.t.Error(err)
	}
	return out
}

// crafted is a pack that git would not make.
func crafted(lie Lie) []byte {
	base := entry(3, 8, deflated([]byte("12345678")))
	switch lie {
	case DeltaBomb:
		// One instruction to copy, and a size that is a promise.
		delta := append(binary.AppendUvarint(binary.AppendUvarint(nil, 8), 64<<30), 0x90, 8)
		return pack(base, offsetDelta(len(base), delta))
	case DeltaChain:
		entries := [][]byte{base}
		for size := uint64(8); size < 1<<40; size *= 2 {
			delta := binary.AppendUvarint(binary.AppendUvarint(nil, size), size*2)
			delta = append(delta, copyAll(size)...)
			delta = append(delta, copyAll(size)...)
			entries = append(entries, offsetDelta(len(entries[len(entries)-1]), delta))
		}
		return pack(entries...)
	case ZlibBomb:
		return pack(entry(3, 10, deflated(make([]byte, 1<<20))))
	}
	return pack(entry(3, 8, []byte("\x78\x9cthis is not deflated at all")))
}

// copyAll copies a whole base with as many instructions as that takes.
func copyAll(size uint64) []byte {
	var out []byte
	for at := uint64(0); at < size && len(out) < 1000; {
		n := min(size-at, 0xffffff)
		out = append(out, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(n), byte(n>>8), byte(n>>16))
		at += n
	}
	return out
}

func offsetDelta(back int, delta []byte) []byte {
	var distance []byte
	for n := back; ; n = n>>7 - 1 {
		b := byte(n & 0x7f)
		if len(distance) > 0 {
			b |= 0x80
		}
		distance = append([]byte{b}, distance...)
		if n < 0x80 {
			break
		}
	}
	return entry(6, int64(len(delta)), append(distance, deflated(delta)...))
}

func entry(kind byte, size int64, rest []byte) []byte {
	head := []byte{kind<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		head[len(head)-1] |= 0x80
		head = append(head, byte(size&0x7f))
	}
	return append(head, rest...)
}

func deflated(data []byte) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

func pack(entries ...[]byte) []byte {
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(entries)))
	out = append(out, bytes.Join(entries, nil)...)
	sum := sha1.Sum(out) //nolint:gosec // see above
	return append(out, sum[:]...)
}

func answer(w http.ResponseWriter, pack []byte) {
	line(w, "NAK\n")
	for len(pack) > 0 {
		n := min(len(pack), 60_000)
		line(w, "\x01"+string(pack[:n]))
		pack = pack[n:]
	}
	flush(w)
}

func packet(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }

func line(w http.ResponseWriter, text string) { fmt.Fprint(w, packet(text)) }

func flush(w http.ResponseWriter) { fmt.Fprint(w, "0000") }
