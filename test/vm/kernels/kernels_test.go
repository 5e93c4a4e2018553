package kernels

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/vm"
	"github.com/bothy-os/bothy/test/vm/gotest"
)

// onEveryKernel runs a test once for each kernel, one after the other: a machine
// takes the whole host.
func onEveryKernel(t *testing.T, test func(t *testing.T, lab *vm.Lab, kernel string)) {
	lab := vm.Open(t)
	names := os.Getenv("BOTHY_VM_KERNELS")
	if names == "" {
		names = "6.1 6.12"
	}
	for kernel := range strings.FieldsSeq(names) {
		t.Run(kernel, func(t *testing.T) { test(t, lab, kernel) })
	}
}

// build compiles the tests of packages.
func build(t *testing.T, lab *vm.Lab, packages ...string) []gotest.Binary {
	t.Helper()
	binaries, err := gotest.Build(t.Context(), lab.Paths.Root, t.TempDir(), packages...)
	if err != nil {
		t.Fatal(err)
	}
	return binaries
}

// testBin is where tests find the product's programs, named by BOTHY_TEST_BIN:
// there is no compiler in a machine.
const testBin = "/usr/local/lib/bothy"

// runAll boots a machine with the programs and runs them.
func runAll(t *testing.T, lab *vm.Lab, kernel string, binaries []gotest.Binary, o gotest.Options) {
	t.Helper()
	tree := lab.Tree(t)
	for _, b := range binaries {
		if err := b.AddTo(tree); err != nil {
			t.Fatal(err)
		}
	}
	programs := map[string]string{
		testBin + "/bothy-init": lab.Binary(t, "bothy-init"),
		testBin + "/bothy-cni":  lab.Binary(t, "bothy-cni"),
		"/usr/sbin/e2fsck":      "e2fsck",
		"/usr/sbin/mkfs.ext4":   "mkfs.ext4",
		"/usr/sbin/mkfs.xfs":    "mkfs.xfs",
	}
	for path, program := range programs {
		if err := tree.AddProgram(path, program); err != nil {
			t.Fatal(err)
		}
	}
	m := lab.Boot(t, vm.Spec{Kernel: kernel, Root: tree, FreeMiB: 1024})
	o.Env = append(o.Env, "BOTHY_TEST_BIN="+testBin)
	for _, b := range binaries {
		t.Run(b.Name, func(t *testing.T) { gotest.Run(t, m, b, o) })
	}
}

// TestDataplane verifies, loads and attaches the programs, runs them on packets, and has
// whole nodes of them: what one kernel's verifier accepts another may refuse. Packages that only
// compute are left out.
func TestDataplane(t *testing.T) {
	onEveryKernel(t, func(t *testing.T, lab *vm.Lab, kernel string) {
		binaries := build(t, lab, "./netdata", "./netdata/announce", "./netdata/cni/...", "./netdata/dns", "./netdata/loader", "./netdata/maps")
		peer := regexp.MustCompile("^TestPeer$") // is the second node of other tests
		runAll(t, lab, kernel, binaries, gotest.Options{Limit: 4 * time.Minute, MaySkip: peer})
	})
}

// TestHost runs what depends on cgroups, namespaces, file systems and mounts: the
// machines have cgroup version 2 only, and project quotas. Packages that write files and no more are left
// out; what installs is tested where it installs.
func TestHost(t *testing.T) {
	onEveryKernel(t, func(t *testing.T, lab *vm.Lab, kernel string) {
		binaries := build(t, lab, "./os/boot/...", "./os/reset", "./os/sandbox", "./os/settings", "./internal/durable", "./internal/memory", "./node/volumes")
		runAll(t, lab, kernel, binaries, gotest.Options{Limit: 2 * time.Minute})
	})
}

// TestPackages runs the tests of packages of one's choice, such as
// BOTHY_VM_PACKAGES="./netdata/loader ./images"; of them those that
// BOTHY_VM_TESTS matches, if that is set.
func TestPackages(t *testing.T) {
	packages := strings.Fields(os.Getenv("BOTHY_VM_PACKAGES"))
	if len(packages) == 0 {
		t.Skip("BOTHY_VM_PACKAGES names no packages")
	}
	onEveryKernel(t, func(t *testing.T, lab *vm.Lab, kernel string) {
		runAll(t, lab, kernel, build(t, lab, packages...), gotest.Options{
			Limit: 4 * time.Minute, Args: []string{"-test.run=" + os.Getenv("BOTHY_VM_TESTS")},
		})
	})
}
