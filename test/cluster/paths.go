package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Paths says where the tree and what was built from it are.
type Paths struct {
	// Root is the top of the source tree.
	Root string
	// Bin holds bothy, its helpers and kubectl.
	Bin string
	// Images and TestImages are OCI layouts: what the product ships, and what
	// tests run in pods.
	Images, TestImages string
	// Runs is where nodes under test keep their state.
	Runs string
}

// FindPaths looks upwards from the working directory for the source tree.
func FindPaths() (Paths, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Paths{}, err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/bothy-os/bothy\n") {
			build := filepath.Join(dir, "build")
			return Paths{
				Root: dir, Bin: filepath.Join(build, "bin"), Runs: filepath.Join(build, "run"),
				Images: filepath.Join(build, "images"), TestImages: filepath.Join(build, "test-images"),
			}, nil
		}
	}
	return Paths{}, fmt.Errorf("the working directory is not inside bothy's source tree")
}

// Missing says what keeps nodes from running on this machine, or "".
func (p Paths) Missing() string {
	if runtime.GOOS != "linux" {
		return "nodes run on Linux only"
	}
	if os.Geteuid() != 0 {
		return "not root: nodes need namespaces, mounts and BPF; run `sudo make test-integration`"
	}
	for _, file := range []string{
		filepath.Join(p.Bin, "bothy"), filepath.Join(p.Bin, "kubectl"),
		filepath.Join(p.Images, "index.json"), filepath.Join(p.TestImages, "index.json"),
	} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Sprintf("%s is missing: run `make test-integration`, which builds it", file)
		}
	}
	return ""
}

// Require returns the paths, or skips the test where nodes cannot run.
func Require(t testing.TB) Paths {
	t.Helper()
	p, err := FindPaths()
	if err != nil {
		t.Fatal(err)
	}
	if why := p.Missing(); why != "" {
		t.Skip(why)
	}
	return p
}

// Bothy is the path of the bothy command.
func (p Paths) Bothy() string { return filepath.Join(p.Bin, "bothy") }
