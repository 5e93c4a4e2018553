package appliance

import (
	"fmt"
	"log/slog"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	watchdogDevice = "/dev/watchdog"
	// watchdogTimeout is how long the machine may hang before the hardware resets it. It
	// covers a disk that stalls.
	watchdogTimeout = 30 * time.Second
	// setTimeout is WDIOC_SETTIMEOUT of uapi/linux/watchdog.h.
	setTimeout = 0xc0045706
)

// watchdog is hardware that resets the machine unless it is fed.
type watchdog struct{ device *os.File }

// startWatchdog arms the watchdog, if the machine has one, and feeds it for as long as
// this process runs. It is never disarmed: a machine that hangs on its way down has to
// come up again, too.
func startWatchdog(log *slog.Logger) (armed bool) {
	f, err := os.OpenFile(watchdogDevice, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	w := &watchdog{f}
	timeout, err := w.setTimeout(watchdogTimeout)
	if err != nil {
		log.Warn("the watchdog keeps its own timeout", "err", err)
		timeout = watchdogTimeout
	}
	log.Info("the watchdog is armed", "timeout", timeout)
	go w.feed(log, timeout/3)
	return true
}

// setTimeout asks for a timeout and returns the one that the hardware took.
func (w *watchdog) setTimeout(d time.Duration) (time.Duration, error) {
	seconds := int32(d / time.Second)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, w.device.Fd(), setTimeout, uintptr(unsafe.Pointer(&seconds))); errno != 0 { //nolint:gosec // the kernel reads and fills it
		return 0, fmt.Errorf("set the timeout: %w", errno)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (w *watchdog) feed(log *slog.Logger, every time.Duration) {
	for tick := time.NewTicker(max(every, time.Second)); ; <-tick.C {
		if _, err := w.device.Write([]byte{0}); err != nil {
			log.Error("cannot feed the watchdog", "err", err)
		}
	}
}
