package layer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func archive(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeLink && h.Typeflag != tar.TypeSymlink {
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}
}

func TestWhatIsHarmlessPassesByteForByte(t *testing.T) {
	plain := archive(t, file("/usr/bin/app", 100_000), file("./etc/x", 0), file("a/.wh..wh..opq", 0), file("a/.wh.b", 0), file("..data", 3),
		&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../anywhere"}, &tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "etc/x"})
	plain = append(plain, "what follows the end counts too"...)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for how, data := range map[string][]byte{"plain": plain, "gzip": packed(t, plain), "zstd": z.EncodeAll(plain, nil), "empty": nil} {
		g, err := Open(bytes.NewReader(data), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(g)
		if err != nil || !bytes.Equal(got, plain) && how != "empty" {
			t.Errorf("%s: %d of %d bytes, %v", how, len(got), len(plain), err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatDoesHarmIsRefusedWithItsReason(t *testing.T) {
	many := make([]*tar.Header, 50)
	for i := range many {
		many[i] = file("f", 0)
	}
	bomb := archive(t, file("zeros", 8<<20))
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"a name":                {archive(t, file("a/../../etc/passwd", 1)), `"a/../../etc/passwd" leads out`},
		"a link":                {archive(t, &tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}), `to "../../etc/shadow"`},
		"a whiteout":            {archive(t, file("dir/.wh...", 0)), "removes what is outside"},
		"too many files":        {archive(t, many...), "more than 40 files"},
		"too large":             {archive(t, file("big", 20<<20)), "more than 16 MiB"},
		"a bomb":                {packed(t, bomb), "made to fill the disk"},
		"a bomb of many layers": {packed(t, bytes.Repeat([]byte{0}, 12<<20)), "made to fill the disk"},
		"cut off":               {packed(t, archive(t, file("half", 2<<20)))[:1000], "unexpected EOF"},
	} {
		g, err := Open(bytes.NewReader(c.data), Limits{Bytes: 16 << 20, Free: 4 << 20, Entries: 40})
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, g)
		var refused *RefusedError
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &refused) == (what == "cut off") {
			t.Errorf("%s: %v", what, err)
		}
		if n > 5<<20 {
			t.Errorf("%s: %d bytes got through", what, n)
		}
	}
}

// A file with holes is small in the archive and as large as it says on disk.
func TestHolesCount(t *testing.T) {
	header := archive(t, file("x", 0))[:512]
	copy(header[124:], "77777777777\x00") // 8 GiB - 1
	for i := range 8 {
		header[148+i] = ' '
	}
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7), byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})
	var refused *RefusedError
	if err := Examine(bytes.NewReader(header), Limits{Bytes: 4 << 30}); !errors.As(err, &refused) {
		t.Errorf("a file of 8 GiB: %v", err)
	}
}

func BenchmarkGuard(b *testing.B) {
	data := packed(b, archive(b, file("a", 16<<20)))
	for name, read := range map[string]func(io.Reader) error{
		"guarded": func(r io.Reader) error { return Examine(r, Limits{Ratio: 1 << 40}) },
		"plain": func(r io.Reader) error {
			z, err := decompress(r)
			if err == nil {
				_, err = io.Copy(io.Discard, z)
			}
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(16 << 20)
			for b.Loop() {
				if err := read(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzExamine(f *testing.F) {
	f.Add(archive(f, file("a", 3)))
	f.Add(packed(f, archive(f, file("a/../b", 3))))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = Examine(bytes.NewReader(data), Limits{Bytes: 16 << 20, Free: 1 << 20, Ratio: 10}) // must neither panic nor hang
	})
}
