package within

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netns"
)

// TestNetns: f is in the namespace and nobody else is, not even the process as others see it.
func TestNetns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var other netns.NsHandle
	made := make(chan error)
	onLostThread(func() {
		other, err = netns.New()
		made <- err
	})
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 100 { // on the first thread as well, sooner or later
		var inside string
		if err := Netns(other, func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if inside == own {
			t.Fatal("f ran in the process's own namespace")
		}
		if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != own {
			t.Fatalf("the process is in %s, it was in %s: %v", now, own, err)
		}
	}
	wrong := errors.New("no")
	if err := Netns(other, func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	if err := Path("/nonexistent", func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
