package endpoint

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

func TestStream(t *testing.T) {
	w := httptest.NewRecorder()
	s := newStream(w, true)
	s.beat()
	s.say("a line")
	long := bytes.Repeat([]byte("x"), 3*pktline.MaxPayloadSize)
	if n, err := s.Write(long); err != nil || n != len(long) {
		t.Fatalf("%d %v", n, err)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	if text := w.Body.String(); !strings.HasPrefix(text, "0005\x01000c\x02a line\n") || !strings.HasSuffix(text, "x0000") {
		t.Errorf("begins %q, ends %q", text[:30], text[len(text)-10:])
	}
	data := 0
	packets := pktline.NewScanner(w.Body)
	for packets.Scan() {
		if p := packets.Bytes(); len(p) > 0 && p[0] == 1 {
			data += len(p) - 1
		}
	}
	if packets.Err() != nil || data != len(long) {
		t.Errorf("%d bytes of data of %d: %v", data, len(long), packets.Err())
	}
	w = httptest.NewRecorder()
	s = newStream(w, false)
	stop := s.keepAlive()
	s.beat()
	s.say("nobody can read this")
	stop()
	if err := s.end(); err != nil || w.Body.Len() != 0 {
		t.Errorf("%v, wrote %q to a client without bands", err, w.Body)
	}
}
