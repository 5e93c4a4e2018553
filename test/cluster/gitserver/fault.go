package gitserver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// Fault is what is wrong with the server. The zero value is a good server.
type Fault struct {
	// Down resets every connection.
	Down bool
	// Stalled takes requests and never answers.
	Stalled bool
	// BytesPerSecond slows answers down; 0 for as fast as it goes.
	BytesPerSecond int
	// TruncatePack ends the answer that carries a pack after so many bytes.
	TruncatePack int64
	// CorruptPack changes bytes in the middle of packs.
	CorruptPack bool
	// EndlessPack goes on sending after the pack has ended, for ever.
	EndlessPack bool
	// Password is the only one that is let in; empty lets everybody in.
	Password string
}

// Misbehave puts a fault into force, in place of the one before. Requests that
// stall are cut off.
func (s *Server) Misbehave(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
	close(s.released)
	s.released = make(chan struct{})
}

func (s *Server) misbehaving(git http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault, released := s.fault, s.released
		s.requests++
		s.mu.Unlock()
		switch {
		case fault.Down:
			reset(w)
		case fault.Stalled:
			select {
			case <-released:
			case <-r.Context().Done():
			}
			reset(w)
		case fault.Password != "" && !authorized(r, fault.Password):
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "the token has expired", http.StatusUnauthorized)
		default:
			git.ServeHTTP(&faultyWriter{ResponseWriter: w, fault: fault, released: released}, r)
			if fault.EndlessPack && carriesPack(w) {
				endless(w, released)
			}
		}
	})
}

func authorized(r *http.Request, password string) bool {
	_, got, ok := r.BasicAuth()
	return ok && got == password
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // which ends it as well
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // best effort: a FIN is as good
	}
	_ = conn.Close()
}

func endless(w http.ResponseWriter, released <-chan struct{}) {
	filler := make([]byte, 32<<10)
	for {
		select {
		case <-released:
			return
		default:
		}
		if _, err := w.Write(filler); err != nil {
			return
		}
	}
}

func carriesPack(w http.ResponseWriter) bool {
	return w.Header().Get("Content-Type") == "application/x-git-upload-pack-result"
}

// faultyWriter does to answers what the fault says.
type faultyWriter struct {
	http.ResponseWriter
	fault    Fault
	released <-chan struct{}
	sent     int64
	// packAt is where in the answer the pack begins, 0 until it does; tail is
	// the end of what was sent before, in which the pack's magic may begin.
	packAt int64
	tail   []byte
}

var errCut = errors.New("cut off, as the fault says")

func (f *faultyWriter) Write(p []byte) (int, error) {
	if carriesPack(f.ResponseWriter) {
		if f.fault.TruncatePack > 0 && f.sent+int64(len(p)) > f.fault.TruncatePack {
			return f.truncate(p)
		}
		if f.fault.CorruptPack {
			p = f.corrupted(p)
		}
	}
	f.sent += int64(len(p))
	if f.fault.BytesPerSecond == 0 {
		return f.ResponseWriter.Write(p)
	}
	return f.dribble(p)
}

// truncate sends what the fault lets through, and ends the connection.
func (f *faultyWriter) truncate(p []byte) (int, error) {
	written, err := f.ResponseWriter.Write(p[:max(0, f.fault.TruncatePack-f.sent)])
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	reset(f.ResponseWriter)
	return written, errors.Join(errCut, err)
}

// packMagic begins a pack. Answers without one, in which a server and a client
// agree on what to send, stay as they are: what a client makes of damage there
// depends on which bytes it hits.
const packMagic = "PACK"

// corruptFrom leaves the head of the pack intact.
const corruptFrom = 32

func (f *faultyWriter) corrupted(p []byte) []byte {
	if f.packAt == 0 {
		seen := append(f.tail, p...)
		at := bytes.Index(seen, []byte(packMagic))
		if at < 0 {
			f.tail = append([]byte(nil), seen[max(0, len(seen)-len(packMagic)+1):]...)
			return p
		}
		f.packAt = f.sent - int64(len(f.tail)) + int64(at)
	}
	out := append([]byte(nil), p...)
	for i := max(0, f.packAt+corruptFrom-f.sent); i < int64(len(out)); i += 50 {
		out[i] ^= 0x55
	}
	return out
}

// dribble writes a tenth of a second's worth at a time.
func (f *faultyWriter) dribble(p []byte) (int, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	written := 0
	for len(p) > 0 {
		n, err := f.ResponseWriter.Write(p[:min(len(p), max(1, f.fault.BytesPerSecond/10))])
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
		if err := http.NewResponseController(f.ResponseWriter).Flush(); err != nil {
			return written, err
		}
		select {
		case <-tick.C:
		case <-f.released:
			return written, io.ErrClosedPipe
		}
	}
	return written, nil
}
