package debian

import (
	"testing"

	"github.com/bothy-os/bothy/internal/debian"
)

func TestOurLockIsComplete(t *testing.T) {
	l, err := debian.ParseLock("packages.yaml", packagesYAML)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Find("busybox-static"); err != nil {
		t.Error(err)
	}
	if len(l.Kernels) == 0 {
		t.Error("no kernels")
	}
}
