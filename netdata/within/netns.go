// Package within runs functions in other network namespaces.
package within

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Netns runs f on a thread that is in the namespace and is thrown away afterwards. What f starts is not in
// it; sockets that f opens stay in it.
func Netns(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	onLostThread(func() {
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- f()
	})
	return <-done
}

// onLostThread runs f in a goroutine, on a thread that ends with it. That cannot be the process's first one, which
// does not end and would show the namespace as the process's own.
func onLostThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		ended := make(chan struct{})
		onLostThread(func() { // elsewhere: this thread is taken until the end
			defer close(ended)
			f()
		})
		<-ended
		runtime.UnlockOSThread()
	}()
}

// Path is [Netns] for the namespace at a path. The error says which if it cannot be opened.
func Path(path string, f func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	return Netns(ns, f)
}
