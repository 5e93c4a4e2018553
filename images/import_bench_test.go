package images

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/store"
)

// BenchmarkImport compares, in MB of the image per second until it can run, what
// a node does with a bundle (all of it: reading the file, checking it, sharing
// it with containerd, unpacking) with what `ctr images import` does with the same
// file, on the same stores.
func BenchmarkImport(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: unpacking a layer is a mount")
	}
	l := imagetest.New(b)
	l.Name("x/app:1", l.Image(text(1, 48<<20), text(2, 16<<20), imagetest.Noise(3, 16<<20)))
	from, err := layout.Open(l.Save().Dir)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "site.tar")
	list, err := bundle.Create(b.Context(), bundle.Options{To: file, Images: []string{"x/app:1"}, Sources: []bundle.Source{bundle.Layout(from)}})
	if err != nil {
		b.Fatal(err)
	}
	for name, run := range map[string]func(b *testing.B, c *containerd) error{
		"bothy": func(b *testing.B, c *containerd) error {
			s := store.New(filepath.Join(c.dir, "images"), filepath.Join(c.dir, "content"))
			if _, err := s.Import(c.ctx, file, nil, nil); err != nil {
				return err
			}
			c.target.store = s
			return New(Config{Store: s, Log: slog.New(slog.DiscardHandler)}).importInto(c.ctx, c.target)
		},
		"ctr": func(b *testing.B, c *containerd) error {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			images, err := c.target.client.Import(c.ctx, io.Reader(f))
			if err != nil {
				return err
			}
			return client.NewImage(c.target.client, images[0]).Unpack(c.ctx, c.target.snapshotter)
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(list.Size)
			for b.Loop() {
				b.StopTimer()
				c, closeIt, err := openContainerd(b.Context(), b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := run(b, c); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				closeIt()
				written, err := bytesWritten(c.dir)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(written)/float64(list.Size), "disk/image")
				b.StartTimer()
			}
		})
	}
}

// text is content that compresses about as programs do.
func text(seed uint64, size int) []byte {
	out := imagetest.Noise(seed, size)
	for i := range out {
		if i%3 != 0 {
			out[i] = byte('a' + i/7%13)
		}
	}
	return out
}

// bytesWritten is what the compressed content takes on disk, each file once
// however many names it has.
func bytesWritten(dir string) (int64, error) {
	var n int64
	var seen []os.FileInfo
	for _, sub := range []string{"content", "images"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(_ string, e os.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil //nolint:nilerr // one of the two does not exist
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			for _, s := range seen {
				if os.SameFile(s, info) {
					return nil
				}
			}
			seen = append(seen, info)
			n += info.Size()
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
