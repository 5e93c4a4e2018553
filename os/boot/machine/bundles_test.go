package machine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stick is a volume for tests, by its directory.
type sticks map[volume]string

func newTestCourier(t *testing.T, in sticks) (c *courier, taken, shown *[]string) {
	t.Helper()
	taken, shown = &[]string{}, &[]string{}
	return &courier{
		log: slog.New(slog.DiscardHandler), show: func(text string) { *shown = append(*shown, text) },
		volumes: func() (out []volume) {
			for v := range in {
				out = append(out, v)
			}
			return out
		},
		mounted: func(v volume, do func(string) error) error { return do(in[v]) },
		take: func(_ context.Context, dir string) (string, error) {
			if _, err := os.Stat(filepath.Join(dir, "bad.tar")); err == nil {
				return "", errors.New("blob sha256:00 is damaged")
			}
			*taken = append(*taken, dir)
			return "3 images", nil
		},
		kept: filepath.Join(t.TempDir(), "bundles"), record: filepath.Join(t.TempDir(), "bundles.json"),
	}, taken, shown
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestBundlesOfAVolumeAreTakenInOnce(t *testing.T) {
	a := volume{"/dev/sdb1", "vfat"}
	stick := t.TempDir()
	bundle := filepath.Join(stick, "bundles", "site.tar")
	write(t, bundle, "one")
	in := sticks{a: stick}
	c, taken, shown := newTestCourier(t, in)
	ctx := t.Context()
	for range 2 { // something else is plugged in, and it is looked at again
		c.all(ctx)
	}
	if want := []string{filepath.Dir(bundle)}; !slices.Equal(*taken, want) {
		t.Fatalf("taken in: %v, want %v", *taken, want)
	}
	if last := (*shown)[len(*shown)-1]; last != "taken in: 3 images" {
		t.Errorf("the console says %q", last)
	}

	restarted, taken2, _ := newTestCourier(t, in)
	restarted.record = c.record
	restarted.all(ctx)
	if len(*taken2) > 0 {
		t.Error("a volume that stayed where it was is taken in at each start")
	}
	write(t, bundle, "two") // of the same size
	restarted.all(ctx)
	if len(*taken2) != 1 {
		t.Errorf("another bundle of the same size and name was taken in %d times", len(*taken2))
	}
	delete(in, a)
	restarted.all(ctx)
	in[a] = stick
	restarted.all(ctx)
	if len(*taken2) != 2 {
		t.Errorf("one that was plugged in again was taken in %d times in all, want 2", len(*taken2))
	}
}

func TestVolumesWithoutBundlesAreLeftAlone(t *testing.T) {
	stick := t.TempDir()
	write(t, filepath.Join(stick, "boot.yaml"), "kind: BootConfig")
	c, taken, shown := newTestCourier(t, sticks{volume{"/dev/sr0", "iso9660"}: stick})
	c.all(t.Context())
	if len(*taken)+len(*shown) > 0 {
		t.Errorf("taken in: %v, said: %v", *taken, *shown)
	}
}

func TestADamagedBundleIsSaidAndTriedAgain(t *testing.T) {
	a := volume{"/dev/sdb1", "vfat"}
	stick := t.TempDir()
	bad := filepath.Join(stick, "bundles", "bad.tar")
	write(t, bad, "bad")
	c, taken, shown := newTestCourier(t, sticks{a: stick})
	c.all(t.Context())
	if last := (*shown)[len(*shown)-1]; !strings.Contains(last, "/dev/sdb1 were not taken in: blob sha256:00 is damaged") {
		t.Errorf("the console says %q", last)
	}
	if len(c.remembered()) > 0 {
		t.Error("what was not taken in is remembered as if it had been")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(stick, "bundles", "good.tar"), "good")
	c.all(t.Context())
	if len(*taken) != 1 {
		t.Errorf("the good one was taken in %d times", len(*taken))
	}
}

func TestBundlesThatCameWithTheConfigurationAreNotKeptTwice(t *testing.T) {
	stick := t.TempDir()
	write(t, filepath.Join(stick, "bundles", "site.tar"), "site")
	c, taken, _ := newTestCourier(t, sticks{volume{"/dev/sdb1", "vfat"}: stick})
	write(t, filepath.Join(c.kept, "site.tar"), "site") // a copy of the same
	c.all(t.Context())
	if want := []string{c.kept}; !slices.Equal(*taken, want) {
		t.Errorf("taken in: %v, want %v: the volume has the same", *taken, want)
	}
	if _, err := os.Stat(c.kept); !os.IsNotExist(err) {
		t.Errorf("the copy is kept: %v", err)
	}
}
