// Command faulty takes the place of a program in an image of the operating system that is to
// fail. How it fails is decided when it is built:
//
//	go build -ldflags '-X main.fault=hang'
package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

var fault = "exit"

func main() {
	if err := fail(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func fail() error {
	switch fault {
	case "panic":
		return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0o200)
	case "hang":
		return hang()
	}
	return nil
}

// hang takes every processor for itself, so that not even process 1 gets to feed the
// watchdog.
func hang() error {
	if err := os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0o644); err != nil {
		return err
	}
	failed := make(chan error)
	for range 4 * runtime.NumCPU() {
		go func() {
			runtime.LockOSThread()
			if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}, 0); err != nil {
				failed <- err
				return
			}
			for { //nolint:staticcheck // that is what it is for
			}
		}()
	}
	return <-failed
}
