package appliance

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// readable is how long an error stays on the screen before the machine starts again.
const readable = 10 * time.Second

// errEnded says that the machine was told to stop, and how.
type errEnded struct{ how int }

func (errEnded) Error() string { return "the machine was told to stop" }

// restartOn ends process 1 the only way that leaves no machine hanging: the machine is
// switched off when it was told to be, and starts again in every other case.
func restartOn(err error) error {
	how := unix.LINUX_REBOOT_CMD_RESTART
	var ended errEnded
	if errors.As(err, &ended) {
		how = ended.how
	} else {
		fmt.Fprintf(os.Stderr, "\nbothy cannot start: %v\nstarting again in %s\n", err, readable)
		newLog("bothy-init").Error("cannot start", "err", err)
		time.Sleep(readable)
	}
	unix.Sync()
	if err := unix.Reboot(how); err != nil {
		return fmt.Errorf("restart the machine: %w", err) // the kernel panics when process 1 ends
	}
	select {} // the machine is about to stop
}
