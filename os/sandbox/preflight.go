package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
)

// MinFreeBytes is the disk space a node needs to start: the images of the
// example, etcd and logs, with room to spare.
const MinFreeBytes = 1 << 30

var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$`)

// preflight refuses what cannot work, before anything is changed.
func preflight(spec *Spec) error {
	if os.Geteuid() != 0 {
		return errors.New("not root: a node needs namespaces, mounts and BPF; run this command with sudo")
	}
	if !nodeName.MatchString(spec.Name) {
		return fmt.Errorf("%q is not a valid node name: use up to 42 lower-case letters, digits and dashes", spec.Name)
	}
	if err := checkKernel(); err != nil {
		return err
	}
	for _, file := range []string{"bothy", "bothy-init", "bothy-cni", "runc", "containerd-shim-runc-v2"} {
		if st, err := os.Stat(filepath.Join(spec.BinDir, file)); err != nil || st.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is missing in %s: build it with `make build`, or install bothy with its helpers in one directory", file, spec.BinDir)
		}
	}
	abs, err := filepath.Abs(spec.StateDir)
	if err != nil {
		return err
	}
	spec.StateDir = abs
	if err := durable.MkdirAll(abs, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	return checkDisk(abs)
}

func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("cannot read the kernel version %q", release)
	}
	if major < 6 || major == 6 && minor < 1 {
		return fmt.Errorf("kernel %s is too old: bothy needs Linux 6.1 or newer", release)
	}
	return nil
}

func checkDisk(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < MinFreeBytes {
		return fmt.Errorf("too little disk: %s has %d MiB free, a node needs %d MiB; free some space or choose another --state", dir, free>>20, MinFreeBytes>>20)
	}
	return nil
}

// hostResolvConf returns the machine's resolver configuration without
// servers on loopback addresses, which the node cannot reach.
func hostResolvConf() string {
	candidates := []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
	var rest string
	for _, file := range candidates {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		text, servers := reachableResolvers(string(data))
		if servers > 0 {
			return text
		}
		if rest == "" {
			rest = text
		}
	}
	return rest
}

func reachableResolvers(text string) (string, int) {
	var out strings.Builder
	servers := 0
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "nameserver" {
			addr, err := netip.ParseAddr(fields[1])
			if err != nil || addr.IsLoopback() {
				continue
			}
			servers++
		}
		out.WriteString(line)
	}
	return out.String(), servers
}
