package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/machine"
	"github.com/bothy-os/bothy/os/boot/modules"
	"github.com/bothy-os/bothy/os/boot/mount"
)

// Main is the program bothy-init. Args begin with the name it was called by; the result
// is the exit status.
func Main(args []string, stdin io.Reader) int {
	err := dispatch(args, stdin)
	if err == nil {
		return 0
	}
	var quiet interface{ Quiet() bool }
	if !errors.As(err, &quiet) || !quiet.Quiet() {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err)
	}
	return 1
}

func dispatch(args []string, stdin io.Reader) error {
	switch name := filepath.Base(args[0]); {
	case name == "modprobe":
		return modules.Modprobe(args[1:])
	case name == "mount":
		return mount.Mount(args[1:])
	case name == "umount":
		return mount.Unmount(args[1:])
	case args[0] == stage1Name && os.Getpid() == 1:
		return restartOn(runStage1())
	case name == initName && os.Getpid() == 1:
		return restartOn(runInit())
	case len(args) > 1 && args[1] == machineCommand:
		return machine.Run(context.Background(), newLog("bothy-machine"))
	}
	return boot.Run(stdin)
}
