package loader

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/maps"
)

// Attaching again is what every agent does that finds the programs of the one before: it replaces them,
// and adds none.
func TestAttachReplaces(t *testing.T) {
	t.Run("filters", func(t *testing.T) { testAttachReplaces(t, true) })
	t.Run("tcx", func(t *testing.T) {
		if !haveTCX() {
			t.Log("this kernel has no tcx: its way is that of the filters")
			return
		}
		testAttachReplaces(t, false)
	})
}

func testAttachReplaces(t *testing.T, filters bool) {
	shared := fresh(t)
	dir := mountBPF(t)
	backend, err := chooseBackend(filepath.Join(dir, "links"), filters)
	if err != nil {
		t.Fatal(err)
	}
	d := &Dataplane{Tables: shared.Tables, dir: dir, programs: shared.programs, devices: backend}
	dev := podDevice(t)
	for range 2 {
		if err := d.AttachPod(dev); err != nil {
			t.Fatal(err)
		}
		for dir, want := range map[direction][]*ebpf.Program{
			ingress: {d.programs[maps.IPv4].FromPod, d.programs[maps.IPv6].FromPod},
			egress:  {d.programs[maps.IPv4].ToPod, d.programs[maps.IPv6].ToPod},
		} {
			if got, want := attached(t, dev, dir, filters), ids(t, want); !slices.Equal(got, want) {
				t.Errorf("%s has programs %v, want %v", dir, got, want)
			}
		}
	}
	if err := d.AttachUplink(dev.Attrs().Name); err != nil {
		t.Fatal(err)
	}
	want := ids(t, []*ebpf.Program{d.programs[maps.IPv4].FromExt, d.programs[maps.IPv6].FromExt})
	if got := attached(t, dev, ingress, filters); !slices.Equal(got, want) {
		t.Errorf("after a replacement by others: %v, want %v", got, want)
	}
	for range 2 { // what is gone already is no error
		if err := d.DetachPod(dev.Attrs().Name); err != nil {
			t.Fatal(err)
		}
	}
	if got := append(attached(t, dev, ingress, filters), attached(t, dev, egress, filters)...); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
}

// podDevice makes one in a network namespace that ends with the test.
func podDevice(t *testing.T) netlink.Link {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "pod"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	dev, err := netlink.LinkByName("pod")
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// attached are the programs of a device in their order.
func attached(t *testing.T, dev netlink.Link, dir direction, filters bool) []ebpf.ProgramID {
	t.Helper()
	var out []ebpf.ProgramID
	if filters {
		parent := uint32(netlink.HANDLE_MIN_INGRESS)
		if dir == egress {
			parent = netlink.HANDLE_MIN_EGRESS
		}
		all, err := netlink.FilterList(dev, parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if bpf, ok := f.(*netlink.BpfFilter); ok {
				out = append(out, ebpf.ProgramID(bpf.Id))
			}
		}
		return out
	}
	kind := ebpf.AttachTCXIngress
	if dir == egress {
		kind = ebpf.AttachTCXEgress
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: dev.Attrs().Index, Attach: kind})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	if found != nil {
		for _, p := range found.Programs {
			out = append(out, p.ID)
		}
	}
	return out
}

func ids(t *testing.T, programs []*ebpf.Program) []ebpf.ProgramID {
	t.Helper()
	var out []ebpf.ProgramID
	for _, p := range programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		if !ok {
			t.Fatal("the kernel does not number programs")
		}
		out = append(out, id)
	}
	return out
}
