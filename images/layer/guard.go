package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Limits bound one layer.
type Limits struct {
	// Bytes is the most that it may unpack to. Default 64 GiB.
	Bytes int64
	// Ratio is how many bytes may come from one, once more than Free bytes came
	// out. Default 200 after 512 MiB: programs and data stay far below, and less
	// does no harm.
	Ratio, Free int64
	// Entries is the most files, directories and links. Default 2 million.
	Entries int
}

func (l Limits) withDefaults() Limits {
	defaults := Limits{Bytes: 64 << 30, Ratio: 200, Free: 512 << 20, Entries: 2_000_000}
	if l.Bytes > 0 {
		defaults.Bytes = l.Bytes
	}
	if l.Ratio > 0 {
		defaults.Ratio = l.Ratio
	}
	if l.Free > 0 {
		defaults.Free = l.Free
	}
	if l.Entries > 0 {
		defaults.Entries = l.Entries
	}
	return defaults
}

// RefusedError says why a layer is not unpacked.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string {
	return "the layer is refused: " + e.Reason + "; get the image from somebody you trust"
}

// counter counts what is read through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

// Guard is a layer's archive, decompressed and looked at.
type Guard struct {
	limits Limits
	packed *counter
	plain  io.ReadCloser
	// raw is plain with a copy of everything in ahead, which is what the archive
	// reader has seen and the caller has not.
	raw     *counter
	ahead   bytes.Buffer
	archive *tar.Reader

	scratch []byte
	inFile  bool
	ended   bool
	entries int
	// announced is the size of all files so far by their headers, content what was
	// read of them; both with the holes in them.
	announced, content int64
	err                error
}

// Open reads a layer, compressed with gzip or zstd or not at all, within limits.
func Open(r io.Reader, limits Limits) (*Guard, error) {
	packed := &counter{Reader: r}
	plain, err := decompress(packed)
	if err != nil {
		return nil, err
	}
	g := &Guard{limits: limits.withDefaults(), packed: packed, plain: plain, scratch: make([]byte, 32<<10)}
	g.raw = &counter{Reader: io.TeeReader(plain, &g.ahead)}
	g.archive = tar.NewReader(g.raw)
	return g, nil
}

// Examine reads a layer to its end.
func Examine(r io.Reader, limits Limits) error {
	g, err := Open(r, limits)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, g)
	return errors.Join(err, g.Close())
}

// Read implements io.Reader: the decompressed archive, byte for byte.
func (g *Guard) Read(p []byte) (int, error) {
	for g.ahead.Len() == 0 {
		if g.err != nil {
			return 0, g.err
		}
		g.err = g.step()
		if g.err == nil {
			g.err = g.grown()
		}
		if g.err != nil && !errors.Is(g.err, io.EOF) {
			return 0, g.err // nothing of what is refused gets through
		}
	}
	return g.ahead.Read(p)
}

// Close ends the decompression; the reader below stays open.
func (g *Guard) Close() error { return g.plain.Close() }

// step moves on by one entry or a piece of a file.
func (g *Guard) step() error {
	switch {
	case g.ended:
		// What follows the end of the archive is part of the layer's digest.
		_, err := g.raw.Read(g.scratch)
		return err
	case g.inFile:
		n, err := g.archive.Read(g.scratch)
		g.content += int64(n)
		if errors.Is(err, io.EOF) {
			g.inFile, err = false, nil
		}
		return err
	}
	header, err := g.archive.Next()
	if errors.Is(err, io.EOF) {
		g.ended = true
		return nil
	}
	if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
		return fmt.Errorf("read the layer's archive: %w", err)
	}
	g.inFile = true
	return g.entry(header)
}

func (g *Guard) entry(h *tar.Header) error {
	if g.entries++; g.entries > g.limits.Entries {
		return &RefusedError{fmt.Sprintf("it has more than %d files", g.limits.Entries)}
	}
	if g.announced += h.Size; h.Size < 0 || g.announced > g.limits.Bytes {
		return &RefusedError{fmt.Sprintf("its files take more than %d MiB", g.limits.Bytes>>20)}
	}
	if leadsOut(h.Name) {
		return &RefusedError{fmt.Sprintf("the name %q leads out of the image", h.Name)}
	}
	if h.Typeflag == tar.TypeLink && leadsOut(h.Linkname) {
		return &RefusedError{fmt.Sprintf("the link %q leads out of the image, to %q", h.Name, h.Linkname)}
	}
	if hidden, ok := strings.CutPrefix(path.Base(h.Name), ".wh."); ok && (hidden == "" || hidden == "." || hidden == "..") {
		return &RefusedError{fmt.Sprintf("the name %q removes what is outside of its directory", h.Name)}
	}
	return nil
}

// leadsOut reports whether a name has a part that goes up. Where that ends
// depends on links that other layers may have put in its way.
func leadsOut(name string) bool { return slices.Contains(strings.Split(name, "/"), "..") }

// grown refuses what became too much by decompression. Holes in files count as
// what they are to whoever writes them.
func (g *Guard) grown() error {
	out := max(g.raw.n, g.content)
	if g.raw.n > g.limits.Bytes {
		return &RefusedError{fmt.Sprintf("it unpacks to more than %d MiB", g.limits.Bytes>>20)}
	}
	if out > g.limits.Free && out/g.limits.Ratio > g.packed.n {
		return &RefusedError{fmt.Sprintf("%d MiB come out of %d KiB: it is made to fill the disk", out>>20, g.packed.n>>10)}
	}
	return nil
}
