// Guest is process 1 of a virtual machine under test, and what talks to the host
// in it. It is one static program in three roles:
//
//	/init           from the initramfs: loads modules, mounts the root disk, goes there
//	/init on disk   mounts what a Linux system has, starts the next, reaps orphans
//	/init talk      runs what the host asks for, see package wire
//
// A machine is what an ordinary host is: kernel file systems where they belong, cgroup
// version 2 only, modules loaded on demand by modprobe, root with every capability.
// When anything of this fails the machine says so on its console and powers off.
//
// It must not know what is tested.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "talk":
		err = talk()
		fmt.Fprintln(os.Stderr, "guest: talking to the host:", err)
		os.Exit(1)
	case os.Getpid() != 1:
		fmt.Fprintln(os.Stderr, "guest: this is process 1 of a virtual machine and nothing to start by hand")
		os.Exit(2)
	case os.Getenv(stageEnv) == "":
		err = enterRoot()
	default:
		err = bringUp()
	}
	fmt.Fprintln(os.Stderr, "guest: the machine is given up:", err)
	powerOff()
}

func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // process 1 may; nothing could be done if not
}
