package debian

import (
	"slices"
	"testing"
)

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	all := map[string]module{
		"virtio":      {path: "virtio.ko"},
		"virtio_ring": {path: "virtio_ring.ko", depends: []string{"virtio"}},
		"virtio_pci":  {path: "virtio_pci.ko", depends: []string{"virtio-ring", "virtio"}},
		"virtio_blk":  {path: "virtio_blk.ko", depends: []string{"virtio_ring", "virtio"}},
	}
	var got []string
	for _, m := range closure(all, "virtio-pci", "virtio_blk", "built_in") {
		got = append(got, m.path)
	}
	if want := []string{"virtio.ko", "virtio_ring.ko", "virtio_pci.ko", "virtio_blk.ko"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWhatIsNeededMayBeAnAlias(t *testing.T) {
	all := map[string]module{
		"erofs":          {path: "erofs.ko", depends: []string{"libcrc32c"}},
		"libcrc32c":      {path: "libcrc32c.ko", depends: []string{"crc32c"}},
		"crc32c_intel":   {path: "crc32c-intel.ko", aliases: []string{"crc32c", "crypto-crc32c"}},
		"crc32c_generic": {path: "crc32c_generic.ko", aliases: []string{"crc32c"}},
	}
	var got []string
	for _, m := range closure(all, "erofs") {
		got = append(got, m.path)
	}
	if want := []string{"crc32c_generic.ko", "crc32c-intel.ko", "libcrc32c.ko", "erofs.ko"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSoftDependencies(t *testing.T) {
	for line, want := range map[string][]string{
		"pre: crc32c libcrc32c post: other": {"crc32c", "libcrc32c"},
		"pre: crc32c":                       {"crc32c"},
		"post: other":                       nil,
	} {
		if got := softPre(line); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}

func TestNamesOfModules(t *testing.T) {
	if got := moduleName("kernel/net/netfilter/nf-x_y.ko"); got != "nf_x_y" {
		t.Errorf("got %q", got)
	}
}
