package vm_test

import (
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/vm"
	"github.com/bothy-os/bothy/test/vm/qemu"
	"github.com/bothy-os/bothy/test/vm/rootfs"
)

const kernel = "6.12"

// A machine does what its documentation says.
func TestMachine(t *testing.T) {
	lab := vm.Open(t)
	data := qemu.Disk{Serial: "data", File: filepath.Join(t.TempDir(), "data.img")}
	if err := rootfs.MakeExt4(t.Context(), data.File, 64, "-O", "quota,project", "-E", "quotatype=prjquota"); err != nil {
		t.Fatal(err)
	}
	m := lab.Boot(t, vm.Spec{Kernel: kernel, Root: lab.Tree(t), CPUs: 1, MemoryMiB: 512, Disks: []qemu.Disk{data}, Network: true})

	t.Run("commands", func(t *testing.T) {
		r, err := m.Run(t.Context(), vm.Command{
			Args: []string{"sh", "-c", "cat; echo $WORD $PWD >&2; exit 3"}, Dir: "/tmp", Env: []string{"WORD=hello"}, Stdin: []byte("from outside"),
		})
		if err != nil || r.Code != 3 || r.Stdout != "from outside" || r.Stderr != "hello /tmp\n" {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := m.Run(t.Context(), vm.Command{Args: []string{"no-such-program"}}); err == nil {
			t.Error("a program that is not there was run")
		}
	})
	t.Run("commands end with their context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Run(ctx, vm.Command{Args: []string{"sh", "-c", "sleep 1000 & wait"}})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if left := m.Output(t, "ps"); strings.Contains(left, "sleep 1000") {
			t.Errorf("still there:\n%s", left)
		}
	})
	t.Run("host", func(t *testing.T) {
		for script, want := range map[string]string{
			"uname -r": m.Release + "\n",
			"nproc":    "1\n",
			"cut -d' ' -f3 /proc/self/mounts | grep -c '^cgroup'":                            "1\n",    // version 2, alone
			"ip link add v0 type veth && cat /sys/class/net/v0/operstate":                    "down\n", // by modprobe
			"mount -o prjquota /dev/disk/by-id/virtio-data /mnt && echo yes >/mnt/f && sync": "",
			"ip route get 192.0.2.1 | head -n 1 | cut -d' ' -f3":                             "10.0.2.2\n",
		} {
			if got := m.Output(t, "sh", "-c", script); got != want {
				t.Errorf("%s: got %q, want %q", script, got, want)
			}
		}
	})
	m.Kill(t)
	if _, err := m.Run(t.Context(), vm.Command{Args: []string{"true"}}); err == nil {
		t.Error("a machine without power runs commands")
	}

	// What was synced before the power cut is on the disk.
	again := lab.Boot(t, vm.Spec{Kernel: kernel, Root: lab.Tree(t), CPUs: 1, MemoryMiB: 512, Disks: []qemu.Disk{data}})
	if got := again.Output(t, "sh", "-c", "mount /dev/disk/by-id/virtio-data /mnt && cat /mnt/f"); got != "yes\n" {
		t.Errorf("after the power cut the file reads %q", got)
	}
	t.Run("panic", func(t *testing.T) {
		_, err := again.Run(t.Context(), vm.Command{Args: []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}})
		if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
			t.Errorf("got %v", err)
		}
		if _, err := again.Console.Wait(t.Context(), regexp.MustCompile(`sysrq triggered crash`)); err != nil {
			t.Error(err)
		}
	})
}
