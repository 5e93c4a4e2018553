// Package mount is the programs mount and umount as far as the kubelet and the container
// runtime call them: it turns their arguments into system calls. Nothing is looked up in
// a table of file systems, and no helper programs are started.
package mount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// request is what the arguments of mount ask for.
type request struct {
	source, target, fstype string
	flags                  uintptr
	// propagation is changed by a call of its own.
	propagation uintptr
	data        []string
}

// Mount is the program mount: [-t TYPE] [-o OPTIONS] [SOURCE] TARGET.
func Mount(args []string) error {
	r, err := parse(args)
	if err != nil {
		return err
	}
	return r.do(unix.Mount)
}

type mounter func(source, target, fstype string, flags uintptr, data string) error

func (r *request) do(mount mounter) error {
	if r.flags != 0 || r.fstype != "" || r.source != "" || r.propagation == 0 {
		flags := r.flags
		// The first call of a bind mount ignores all flags but these.
		if flags&unix.MS_BIND != 0 && flags&unix.MS_REMOUNT == 0 {
			flags &= unix.MS_BIND | unix.MS_REC
		}
		if err := mount(r.source, r.target, r.fstype, flags, strings.Join(r.data, ",")); err != nil {
			return fmt.Errorf("mount %s on %s: %w", r.source, r.target, err)
		}
		if flags != r.flags {
			if err := mount("", r.target, "", r.flags&^unix.MS_REC|unix.MS_REMOUNT, ""); err != nil {
				return fmt.Errorf("set options of %s: %w", r.target, err)
			}
		}
	}
	if r.propagation != 0 {
		if err := mount("", r.target, "", r.propagation, ""); err != nil {
			return fmt.Errorf("change how mounts propagate from %s: %w", r.target, err)
		}
	}
	return nil
}

func parse(args []string) (*request, error) {
	r := &request{}
	var places []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		value := func() (string, error) {
			if i++; i == len(args) {
				return "", fmt.Errorf("%s needs a value", a)
			}
			return args[i], nil
		}
		var err error
		switch a {
		case "-t", "--types":
			r.fstype, err = value()
		case "-o", "--options":
			var o string
			if o, err = value(); err == nil {
				r.options(o)
			}
		case "--bind":
			r.options("bind")
		case "--rbind":
			r.options("rbind")
		case "--make-shared", "--make-rshared", "--make-slave", "--make-rslave", "--make-private", "--make-rprivate":
			r.options(strings.TrimPrefix(a, "--make-"))
		case "--no-canonicalize", "-n", "--":
		default:
			if strings.HasPrefix(a, "-") {
				return nil, fmt.Errorf("option %s is not known", a)
			}
			places = append(places, a)
		}
		if err != nil {
			return nil, err
		}
	}
	switch len(places) {
	case 1:
		r.target = places[0]
	case 2:
		r.source, r.target = places[0], places[1]
	default:
		return nil, errors.New("say what to mount, and where: [-t TYPE] [-o OPTIONS] [SOURCE] TARGET")
	}
	return r, nil
}

// options takes a list such as "bind,ro,size=1m": flags of the system call, and the rest
// for the file system.
func (r *request) options(list string) {
	for o := range strings.SplitSeq(list, ",") {
		set, unset, propagation, known := flag(o)
		switch {
		case propagation != 0:
			r.propagation = propagation
		case known:
			r.flags = r.flags&^unset | set
		case o != "" && !strings.HasPrefix(o, "x-") && o != "_netdev" && o != "nofail":
			r.data = append(r.data, o)
		}
	}
}

func flag(o string) (set, unset, propagation uintptr, known bool) {
	switch o {
	case "defaults", "rw":
		return 0, unix.MS_RDONLY, 0, true
	case "ro":
		return unix.MS_RDONLY, 0, 0, true
	case "bind":
		return unix.MS_BIND, 0, 0, true
	case "rbind":
		return unix.MS_BIND | unix.MS_REC, 0, 0, true
	case "remount":
		return unix.MS_REMOUNT, 0, 0, true
	case "nosuid":
		return unix.MS_NOSUID, 0, 0, true
	case "suid":
		return 0, unix.MS_NOSUID, 0, true
	case "nodev":
		return unix.MS_NODEV, 0, 0, true
	case "dev":
		return 0, unix.MS_NODEV, 0, true
	case "noexec":
		return unix.MS_NOEXEC, 0, 0, true
	case "exec":
		return 0, unix.MS_NOEXEC, 0, true
	case "noatime":
		return unix.MS_NOATIME, 0, 0, true
	case "relatime":
		return unix.MS_RELATIME, 0, 0, true
	case "sync":
		return unix.MS_SYNCHRONOUS, 0, 0, true
	case "shared":
		return 0, 0, unix.MS_SHARED, true
	case "rshared":
		return 0, 0, unix.MS_SHARED | unix.MS_REC, true
	case "slave":
		return 0, 0, unix.MS_SLAVE, true
	case "rslave":
		return 0, 0, unix.MS_SLAVE | unix.MS_REC, true
	case "private":
		return 0, 0, unix.MS_PRIVATE, true
	case "rprivate":
		return 0, 0, unix.MS_PRIVATE | unix.MS_REC, true
	}
	return 0, 0, 0, false
}

// Unmount is the program umount: [-l] [-f] TARGET...
func Unmount(args []string) error {
	flags := 0
	var targets []string
	for _, a := range args {
		switch a {
		case "-l", "--lazy":
			flags |= unix.MNT_DETACH
		case "-f", "--force":
			flags |= unix.MNT_FORCE
		case "-n", "--no-canonicalize", "--":
		default:
			if strings.HasPrefix(a, "-") {
				return fmt.Errorf("option %s is not known", a)
			}
			targets = append(targets, a)
		}
	}
	if len(targets) == 0 {
		return errors.New("say what to unmount: [-l] [-f] TARGET")
	}
	var errs []error
	for _, t := range targets {
		if err := unix.Unmount(t, flags); err != nil {
			// The kubelet knows a mount that is gone by these words.
			if errors.Is(err, unix.EINVAL) {
				err = errors.New("not mounted")
			}
			errs = append(errs, fmt.Errorf("%s: %w", t, err))
		}
	}
	return errors.Join(errs...)
}
