package announce

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// send puts a frame on the link of an interface.
func send(ifindex int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Halen: 6}); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}
