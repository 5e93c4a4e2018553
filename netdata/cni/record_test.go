package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

func TestRecordsSurvive(t *testing.T) {
	r := records{dir: filepath.Join(t.TempDir(), "pods")}
	a := record{Attachment: wire.Attachment{ContainerID: "a.b-c", IfName: "eth0"}, Pod: "x/y", Netns: "/n", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, Dev: "pod0"}
	if err := r.put(a); err != nil {
		t.Fatal(err)
	}
	// A file of an agent that was killed while writing.
	if err := os.WriteFile(filepath.Join(r.dir, "eth0@half.json.tmp"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := r.all()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]record{a}, all, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if err := r.remove(a.Attachment); err != nil {
		t.Fatal(err)
	}
	if got, err := r.get(a.Attachment); got != nil || err != nil {
		t.Errorf("after removal: %v, %v", got, err)
	}
	if err := r.remove(a.Attachment); err != nil {
		t.Errorf("second removal: %v", err)
	}
}

func TestDamagedRecordDoesNotHideTheOthers(t *testing.T) {
	r := records{dir: t.TempDir()}
	good := record{Attachment: wire.Attachment{ContainerID: "good", IfName: "eth0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	if err := r.put(good); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "eth0@bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := r.all()
	if len(all) != 1 || all[0].ContainerID != "good" || err == nil {
		t.Errorf("got %v and %v, want the good record and an error about the other", all, err)
	}
}
