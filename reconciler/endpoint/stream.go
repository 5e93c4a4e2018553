package endpoint

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// pulse is how often a client that waits hears that there is somebody.
const pulse = 5 * time.Second

// stream is the answer to a push or a fetch. What is written reaches the client
// at once. In side bands, lines for the reader go beside the data.
type stream struct {
	mu   sync.Mutex // one packet at a time
	w    io.Writer
	live *liveness
	mux  *sideband.Muxer // nil for a client that takes no bands
}

func newStream(w http.ResponseWriter, banded bool) *stream {
	s := &stream{w: w, live: &liveness{control: http.NewResponseController(w), end: time.Now().Add(longest)}}
	if banded {
		s.mux = sideband.NewMuxer(sideband.Sideband64k, unbanded{s})
	}
	return s
}

// unbanded writes outside the bands. The stream is locked.
type unbanded struct{ s *stream }

func (u unbanded) Write(p []byte) (int, error) {
	u.s.live.extend()
	n, err := u.s.w.Write(p)
	if err == nil {
		err = u.s.live.control.Flush()
	}
	return n, err
}

// plain writes outside the bands.
func (s *stream) plain(write func(*pktline.Encoder) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return write(pktline.NewEncoder(unbanded{s}))
}

// Write writes data, in its band if there are bands. go-git's muxer makes its
// pieces one packet header too long, so they are cut here.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mux == nil {
		return unbanded{s}.Write(p)
	}
	for piece := range slices.Chunk(p, pktline.MaxPayloadSize-1) {
		if _, err := s.mux.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// say shows a line to whoever runs git. That they went away is noticed
// elsewhere.
func (s *stream) say(format string, args ...any) {
	s.beside(sideband.ProgressMessage, fmt.Appendf(nil, format+"\n", args...))
}

// fail shows a line and makes git give up.
func (s *stream) fail(text string) { s.beside(sideband.ErrorMessage, []byte(text+"\n")) }

func (s *stream) beside(band sideband.Channel, line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mux != nil {
		_, _ = s.mux.WriteChannel(band, line)
	}
}

// keepAlive keeps the connection from being given up while there is nothing to
// send yet, by either side or anything between them. stop ends that.
func (s *stream) keepAlive() (stop func()) {
	ticker, done := time.NewTicker(pulse), make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			select {
			case <-ticker.C:
				s.beat()
			case <-done:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		ended.Wait()
	}
}

// beat sends a packet of data without data, as git's own server does.
func (s *stream) beat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.extend()
	if s.mux != nil {
		_ = pktline.NewEncoder(unbanded{s}).Encode([]byte{byte(sideband.PackData)})
	}
}

// end ends the bands.
func (s *stream) end() error {
	if s.mux == nil {
		return nil
	}
	return s.plain(func(e *pktline.Encoder) error { return e.Flush() })
}
