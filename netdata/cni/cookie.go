package cni

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/within"
)

// NetnsCookie is the number by which eBPF programs know the network namespace at a path.
func NetnsCookie(path string) (cookie uint64, err error) {
	err = within.Path(path, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read the cookie of network namespace %s: %w", path, err)
	}
	return cookie, nil
}
