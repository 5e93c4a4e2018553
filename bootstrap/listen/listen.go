package listen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Check returns nil when a TCP server can listen on addr. setting is the
// setting by which an operator chooses the port.
func Check(addr netip.AddrPort, setting string) error {
	l, err := net.Listen("tcp", addr.String())
	if err == nil {
		return l.Close()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is in use%s: stop that program, or choose another port with %s", addr, by(addr), setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this node has no address %s: correct the node's address", addr.Addr())
	}
	return fmt.Errorf("listen on %s: %w", addr, err)
}

func by(addr netip.AddrPort) string {
	inode := listeningInode(addr)
	if inode == "" {
		return ""
	}
	pid := processWith("socket:[" + inode + "]")
	if pid == "" {
		return ""
	}
	comm, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return " by process " + pid
	}
	return fmt.Sprintf(" by process %s (%s)", pid, strings.TrimSpace(string(comm)))
}

// listeningInode searches the kernel's socket tables for a listener that
// covers addr and returns its inode number.
func listeningInode(addr netip.AddrPort) string {
	const listening = "0A"
	port := fmt.Sprintf("%04X", addr.Port())
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n") {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != listening {
				continue
			}
			host, p, ok := strings.Cut(f[1], ":")
			if ok && p == port && covers(host, addr.Addr()) {
				return f[9]
			}
		}
	}
	return ""
}

// covers compares an address as the kernel prints it, in 32-bit words of host
// byte order, with addr. The unspecified address covers all.
func covers(hex string, addr netip.Addr) bool {
	if strings.Trim(hex, "0") == "" {
		return true
	}
	var raw []byte
	for i := 0; i+8 <= len(hex); i += 8 {
		word, err := strconv.ParseUint(hex[i:i+8], 16, 32)
		if err != nil {
			return false
		}
		raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
	}
	got, ok := netip.AddrFromSlice(raw)
	return ok && got.Unmap() == addr.Unmap()
}

func processWith(link string) string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == link {
			return strings.Split(fd, "/")[2]
		}
	}
	return ""
}
