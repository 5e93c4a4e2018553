package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// systemCgroup is the child that holds bothy's own processes. On cgroup2 a
// group with controllers for its children cannot hold processes itself.
const systemCgroup = "system"

// cgroups is where a node's processes go, one directory per hierarchy.
type cgroups struct {
	dirs    []string
	unified string
}

// hierarchy is one cgroup mount.
type hierarchy struct {
	mountPoint string
	v2         bool
}

// makeCgroups makes root and its system child in every hierarchy that is
// mounted, v1 and v2 alike. Mounts are left as they are.
func makeCgroups(root string) (*cgroups, error) {
	hierarchies, err := mountedHierarchies()
	if err != nil {
		return nil, err
	}
	c := &cgroups{}
	for _, h := range hierarchies {
		base := filepath.Join(h.mountPoint, root)
		system := filepath.Join(base, systemCgroup)
		if h.v2 {
			err = makeUnified(h.mountPoint, base, system)
			c.unified = base
		} else {
			err = makeV1(h.mountPoint, base, system)
		}
		if err != nil {
			return nil, fmt.Errorf("make cgroup %s: %w", base, err)
		}
		c.dirs = append(c.dirs, system)
	}
	return c, nil
}

func makeV1(mountPoint, base, system string) error {
	for _, dir := range []string{base, system} {
		if err := mkdir(dir); err != nil {
			return err
		}
		// A cpuset without CPUs accepts no process; children start empty.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if _, err := os.Stat(filepath.Join(mountPoint, file)); err != nil {
				continue
			}
			parent, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), bytes.TrimSpace(parent), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func makeUnified(mountPoint, base, system string) error {
	enableControllers(mountPoint)
	if err := mkdir(base); err != nil {
		return err
	}
	if err := mkdir(system); err != nil {
		return err
	}
	enableControllers(base)
	return nil
}

// enableControllers hands every available controller to the children of dir,
// one by one: some kernels and managers hold single ones back, and the
// kubelet says which it misses.
func enableControllers(dir string) {
	available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	enabled, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	on := strings.Fields(string(enabled))
	for _, controller := range strings.Fields(string(available)) {
		if !slices.Contains(on, controller) {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		}
	}
}

func mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// add moves a process into the node's cgroups.
func (c *cgroups) add(pid int) error {
	for _, dir := range c.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("move process %d into cgroup %s: %w", pid, dir, err)
		}
	}
	return nil
}

// removeCgroups removes root and everything below it in every hierarchy. The
// processes must have ended; the kernel may take a moment to notice.
func removeCgroups(root string) error {
	if root == "" || root == "/" {
		return nil
	}
	hierarchies, err := mountedHierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hierarchies {
		errs = append(errs, removeTree(filepath.Join(h.mountPoint, root)))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err := rmdirWhenIdle(d); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}

func rmdirWhenIdle(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func mountedHierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []hierarchy
	scanner := bufio.NewScanner(bytes.NewReader(data))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		before, after, found := strings.Cut(scanner.Text(), " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(types) < 1 || fields[3] != "/" {
			continue
		}
		if types[0] == "cgroup" || types[0] == "cgroup2" {
			out = append(out, hierarchy{mountPoint: fields[4], v2: types[0] == "cgroup2"})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup")
	}
	return out, scanner.Err()
}
