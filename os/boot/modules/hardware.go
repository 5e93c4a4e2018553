package modules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Wanted lists what the devices of this machine ask for, below a directory of sysfs.
func Wanted(sys string) []string {
	found := map[string]bool{}
	// A device that goes away meanwhile is no error.
	_ = filepath.WalkDir(sys, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil //nolint:nilerr // see above
		}
		if data, err := os.ReadFile(file); err == nil && len(bytes.TrimSpace(data)) > 0 {
			found[string(bytes.TrimSpace(data))] = true
		}
		return nil
	})
	return slices.Sorted(maps.Keys(found))
}

// LoadHardware loads modules for all devices there are. Loading a driver makes devices
// appear; [Watch] sees those. Hardware without a driver is no error.
func (s *Set) LoadHardware() error {
	err := s.Load(Wanted("/sys/devices")...)
	if errors.Is(err, ErrUnknown) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Event is something that happened to a device.
type Event struct {
	// Action is add, change, remove or another.
	Action string
	// Fields are what the kernel says of it: SUBSYSTEM, DEVNAME, MODALIAS and others.
	Fields map[string]string
}

// Events returns what happens to devices from now on, until the context ends.
func Events(ctx context.Context) (<-chan Event, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	const fromKernel, room = 1, 1 << 20
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) // the default is usually enough
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to the kernel: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "uevent")
	context.AfterFunc(ctx, func() { socket.Close() })
	events := make(chan Event, 64)
	go func() {
		defer close(events)
		buf := make([]byte, 64<<10)
		for {
			n, err := socket.Read(buf)
			if errors.Is(err, unix.ENOBUFS) { // some were lost: more will come
				continue
			}
			if err != nil {
				return
			}
			select {
			case events <- parseEvent(buf[:n]):
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}

func parseEvent(data []byte) Event {
	e := Event{Fields: map[string]string{}}
	for part := range bytes.SplitSeq(data, []byte{0}) {
		if key, value, ok := strings.Cut(string(part), "="); ok {
			e.Fields[key] = value
		}
	}
	e.Action = e.Fields["ACTION"]
	return e
}

// Watch loads modules for devices that appear, until the context ends. The channel gets
// something whenever devices have changed since it was last read, once that is done, and
// is closed at the end; nobody has to read it.
func (s *Set) Watch(ctx context.Context) (<-chan struct{}, error) {
	events, err := Events(ctx)
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for e := range events {
			if alias := e.Fields["MODALIAS"]; alias != "" && e.Action == "add" {
				_ = s.Load(alias) // most devices need nothing, and the kernel says what fails
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, nil
}
