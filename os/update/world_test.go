package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/os/cuttest"
	"github.com/bothy-os/bothy/os/esp"
	"github.com/bothy-os/bothy/os/image/fat"
	"github.com/bothy-os/bothy/os/verity"
)

const slotSize = 4 << 20

// system is an operating system as it is built.
type system struct {
	boot, root []byte
	digest     string
	version    string
}

// build makes one; the same name gives the same system.
func build(t testing.TB, version string, release ...string) *system {
	t.Helper()
	seed := sha256.Sum256([]byte(version))
	data := make([]byte, 300*verity.BlockSize)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	var tree bytes.Buffer
	hash, err := verity.Append(&tree, data, seed[:], [16]byte(seed[:16]))
	if err != nil {
		t.Fatal(err)
	}
	osRelease := "ID=bothy\nVERSION_ID=\"" + version + "\"\nVARIANT_ID=vm\n" + strings.Join(release, "\n")
	commandLine := fmt.Sprintf("bothy.root=%s bothy.blocks=%d panic=5", hash, len(data)/verity.BlockSize)
	s := &system{root: slices.Concat(data, tree.Bytes()), version: version, boot: program(t, map[string]string{
		".osrel": osRelease, ".cmdline": commandLine, ".linux": string(data[:200_000]), ".initrd": "initrd",
	})}
	sum := sha256.Sum256(s.boot)
	s.digest = fmt.Sprintf("sha256:%x", sum)
	return s
}

// program makes a file that has sections and is else no program.
func program(t testing.TB, sections map[string]string) []byte {
	t.Helper()
	machine := uint16(pe.IMAGE_FILE_MACHINE_AMD64)
	if runtime.GOARCH == "arm64" {
		machine = pe.IMAGE_FILE_MACHINE_ARM64
	}
	var head, content bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&head, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	const headSize = 1024
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[0x3c] = 64
	write(dos)
	write([]byte("PE\x00\x00"))
	write(pe.FileHeader{Machine: machine, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{}))})
	write(pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16})
	for name, text := range sections {
		h := pe.SectionHeader32{VirtualSize: uint32(len(text)), SizeOfRawData: uint32(len(text)), PointerToRawData: uint32(headSize + content.Len())}
		copy(h.Name[:], name)
		write(h)
		content.WriteString(text)
	}
	return append(append(head.Bytes(), make([]byte, headSize-head.Len())...), content.Bytes()...)
}

// world is a machine: its disk, its firmware and its data partition.
type world struct {
	t     testing.TB
	power *cuttest.Power
	// esp and slots are on the disk; running is the number of the slot that runs.
	esp     *cuttest.Disk
	slots   [2]*cuttest.Disk
	running int
	// next says that BootNext is set, known that the boot option is there.
	next, known, secure bool
	// forgetful is a firmware that keeps nothing.
	forgetful bool
	// deaf is a firmware that does not obey.
	deaf bool
	dir  string
	// boots counts what the firmware has started.
	boots int
}

func newWorld(t testing.TB, installed *system) *world {
	t.Helper()
	w := &world{t: t, power: cuttest.NewPower(-1), dir: t.TempDir()}
	image := make(memory, 36<<20)
	v := &fat.Volume{Size: int64(len(image)), Label: "BOTHY-ESP", Files: []fat.File{{Path: KnownFile, Data: installed.boot}}, Time: time.Now()}
	if err := v.Write(image); err != nil {
		t.Fatal(err)
	}
	root := make([]byte, slotSize)
	copy(root, installed.root)
	w.esp, w.slots = cuttest.New(w.power, image), [2]*cuttest.Disk{cuttest.New(w.power, root), cuttest.New(w.power, make([]byte, slotSize))}
	return w
}

type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

func (w *world) ESP() (Device, error)  { return w.esp, nil }
func (w *world) Slot() (Device, error) { return w.slots[1-w.running], nil }
func (w *world) SecureBoot() bool      { return w.secure }
func (w *world) Pending() (bool, error) {
	return w.next, nil
}

func (w *world) Define() error {
	err := w.power.Step()
	if err == nil {
		w.known = true
	}
	return err
}

func (w *world) StartOnce() error {
	err := w.power.Step()
	if err == nil {
		w.next = true
	}
	return err
}

func (w *world) Keeps() (bool, error) { return w.known, nil }

func (w *world) Cancel() error {
	err := w.power.Step()
	if err == nil {
		w.next = false
	}
	return err
}

// lose is a loss of power after so many steps from when the power came, and what may be
// found afterwards.
func (w *world) lose(chance float64) { w.restart(chance, -1) }

// restart is a start of the machine whose power lasts for so many steps.
func (w *world) restart(chance float64, steps int) {
	w.power = cuttest.NewPower(steps)
	w.esp = w.esp.AfterCut(w.power, chance)
	for i := range w.slots {
		w.slots[i] = w.slots[i].AfterCut(w.power, chance)
	}
}

// firmware starts what it is told to, and returns the command line. That what it starts is
// whole is what all of this is about.
func (w *world) firmware() string {
	w.t.Helper()
	file := KnownFile
	w.boots++
	if w.forgetful {
		w.next, w.known = false, false
	}
	if w.next && !w.deaf {
		file, w.next = NextFile, false
	}
	v, err := esp.Open(w.esp)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := v.ReadFile(file)
	if err != nil {
		w.t.Fatalf("the firmware cannot start: %v", err)
	}
	b, err := parseBootFile(data)
	if err != nil {
		w.t.Fatalf("the firmware cannot start %s: %v", file, err)
	}
	hash, blocks, err := (&Generation{CommandLine: b.commandLine}).root()
	if err != nil {
		w.t.Fatal(err)
	}
	var errs []error
	for i, s := range w.slots {
		if err := verity.Check(context.Background(), s, blocks, hash); err == nil {
			w.running = i
			return strings.Join(b.commandLine, " ") + " added=later"
		} else {
			errs = append(errs, err)
		}
	}
	w.t.Fatalf("%s has no root file system: %v", file, errors.Join(errs...))
	return ""
}

// agent opens the updater of the system that the firmware starts, after process 1 has had its
// part.
func (w *world) agent(commandLine string) (*Updater, error) {
	trials := NewTrials(w.dir, commandLine, w)
	if err := w.power.Step(); err != nil {
		return nil, err
	}
	if _, err := trials.Begin(); err != nil {
		return nil, err
	}
	return Open(Config{
		Dir: w.dir, CommandLine: commandLine, Boot: fmt.Sprint(w.boots), Version: "installed", Flavour: "vm", Machine: w, Log: slog.New(slog.DiscardHandler),
		saving: w.power.Step,
	})
}

// boot is a start of the machine up to its agent.
func (w *world) boot() *Updater {
	w.t.Helper()
	u, err := w.agent(w.firmware())
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (s *system) image() Image {
	return Image{Reference: "registry.example.org/os@" + s.digest, Digest: s.digest, Commit: "c0ffee", BootFile: s.boot, Root: bytes.NewReader(s.root), RootSize: int64(len(s.root))}
}

func (w *world) snapshot(u *Updater) error {
	if err := w.power.Step(); err != nil {
		return err
	}
	return writeFile(filepath.Join(u.SnapshotDir(), "etcd"), "old")
}

// start takes an update to the restart of the machine.
func (w *world) start(u *Updater, s *system) error {
	if err := u.Stage(context.Background(), s.image()); err != nil {
		return err
	}
	if err := w.snapshot(u); err != nil {
		return errors.Join(err, u.Abandon())
	}
	return u.Arm(Terms{Limit: time.Minute, Baseline: map[string]int{"pods": 3}})
}
