package appliance

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/update"
)

const (
	// trialGrace is what the agent has to end a trial in good order, with a better reason than
	// this process can give, before it is ended here.
	trialGrace = time.Minute
	// stopLimit is how long the orderly stop of a system on trial may take.
	stopLimit = 2 * time.Minute
)

// watchTrial notes that this system has started if it is on trial, and has the machine
// started again, which is a return to the old one, unless it becomes the known one in time.
// No failure here keeps the machine from starting.
func watchTrial(log *slog.Logger) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		log.Warn("the command line of the kernel is not known", "err", err)
		return
	}
	trials := update.NewTrials(filepath.Join(boot.StateDir, update.Dir), string(text), update.NewHardware())
	limit, err := trials.Begin()
	if err != nil {
		log.Warn("whether this system is on trial is not known", "err", err)
	}
	if limit == 0 {
		return
	}
	log.Info("this system is on trial", "limit", limit)
	time.AfterFunc(limit+trialGrace-uptime(), func() {
		over, err := trials.Expire(fmt.Sprintf("it was not found healthy within %s", limit))
		if err != nil {
			log.Warn("why this system goes is not noted", "err", err)
		}
		if !over {
			return
		}
		log.Error("this system was not found healthy in time, going back to the one before")
		time.AfterFunc(stopLimit, func() {
			unix.Sync()
			_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // there is nothing else to do
		})
		_ = unix.Kill(os.Getpid(), unix.SIGTERM) // the orderly way
	})
}

// uptime is how long the kernel has been running.
func uptime() time.Duration {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return 0
	}
	return time.Duration(since.Nano())
}
