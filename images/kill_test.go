package images

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"

	"github.com/bothy-os/bothy/images/internal/imagetest"
)

// importHelper makes this program import a layout into the stores in a
// directory, so that it can be killed.
const importHelper = "BOTHY_TEST_IMPORT"

func importOnce(dir, layout string) error {
	c, closeIt, err := openContainerd(context.Background(), dir)
	if err != nil {
		return err
	}
	defer closeIt()
	return New(Config{Layouts: []string{layout}, Log: slog.New(slog.DiscardHandler)}).importInto(c.ctx, c.target)
}

// Fifty times the import into containerd is killed at a random moment. Whatever
// has a name then has all of its content and is unpacked; the next import goes
// on; and in the end all images are there.
func TestWhatHasANameCanRunWheneverTheImportIsKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: unpacking a layer is a mount")
	}
	const images = 4
	l := imagetest.New(t)
	for i := range images {
		l.Name(fmt.Sprintf("x/app:%d", i), l.Image(imagetest.Noise(uint64(i), 1<<20), imagetest.Noise(99, 1<<18)))
	}
	l.Save()
	run := func(dir string, after time.Duration) error {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), importHelper+"="+dir+" "+l.Dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		return cmd.Wait()
	}
	began := time.Now()
	if err := run(t.TempDir(), time.Minute); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)
	killed, half := 0, 0
	for killed < 50 {
		dir := t.TempDir()
		for {
			err := run(dir, rand.N(whole))
			n := runnable(t, dir)
			if err == nil && n != images {
				t.Fatalf("the import ended well, and %d of %d images can run", n, images)
			}
			if err == nil {
				break
			}
			killed++
			if n > 0 && n < images {
				half++
			}
		}
	}
	t.Logf("killed %d times within %s, %d times between two images", killed, whole.Round(time.Millisecond), half)
}

// runnable counts the images that have a name, all of which must be able to run.
func runnable(t *testing.T, dir string) int {
	t.Helper()
	c, closeIt, err := openContainerd(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt()
	c.t = t
	c.collectGarbage() // nothing that an image needs may go
	list, err := c.target.client.ImageService().List(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, img := range list {
		unpacked, err := client.NewImage(c.target.client, img).IsUnpacked(c.ctx, c.target.snapshotter)
		whole, _, _, missing, checked := ctrdimages.Check(c.ctx, c.target.client.ContentStore(), img.Target, platforms.Default())
		if err != nil || checked != nil || !unpacked || !whole {
			t.Errorf("%s can be run by its name: unpacked %v, content %v, missing %v; %v, %v", img.Name, unpacked, whole, missing, err, checked)
		}
		if !strings.Contains(img.Name, "@") {
			count++
		}
	}
	return count
}
