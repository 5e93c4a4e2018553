package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Accelerator is how the machine's instructions are run.
type Accelerator string

const (
	// KVM runs them on the processor.
	KVM Accelerator = "kvm"
	// TCG translates them, which takes some fifteen times as long.
	TCG Accelerator = "tcg,thread=multi"
)

// cpu is the processor model. Under emulation the instructions that copy and clear memory byte by byte
// are the slowest there are, and kernels prefer them where a processor calls them fast; page
// tables of five levels make every miss longer.
func (a Accelerator) cpu() string {
	if a == KVM {
		return "host"
	}
	return "max,erms=off,fsrm=off,la57=off"
}

// String is the short name.
func (a Accelerator) String() string {
	if a == KVM {
		return "KVM"
	}
	return "TCG"
}

// probeLimit is many times what a boot sector needs under KVM.
const probeLimit = 10 * time.Second

// ChooseAccelerator returns KVM if a machine runs under it and TCG otherwise,
// with the reason. A device /dev/kvm proves nothing: nested in another virtual
// machine it may refuse what QEMU asks of it, or never run an instruction.
func ChooseAccelerator(ctx context.Context) (Accelerator, error) {
	if err := probe(ctx, KVM); err != nil {
		return TCG, fmt.Errorf("no KVM: %w", err)
	}
	return KVM, nil
}

// The boot sector writes a number to the port of QEMU's debug-exit device, which
// makes it the exit status: twice the number, plus one.
const (
	exitPort   = 0xf4
	exitNumber = 0x15
	exitStatus = exitNumber<<1 | 1
)

func bootDisk() []byte {
	code := []byte{
		0xb0, exitNumber, // mov al, exitNumber
		0xe6, exitPort, // out exitPort, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to the hlt
	}
	disk := make([]byte, 1<<20) // the firmware does not boot from a disk of one sector
	copy(disk, code)
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

// probe runs a boot sector to its end.
func probe(ctx context.Context, a Accelerator) error {
	if a == KVM {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		f.Close()
	}
	dir, err := os.MkdirTemp("", "bothy-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary directory
	image := filepath.Join(dir, "disk")
	if err := os.WriteFile(image, bootDisk(), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	m, err := Start(ctx, Config{
		Accelerator: a, CPUs: 1, MemoryMiB: 32,
		Args: []string{
			"-drive", "if=none,id=boot,format=raw,file=" + image, "-device", "ide-hd,drive=boot",
			"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", exitPort),
		},
	})
	if err != nil {
		return err
	}
	<-m.Done()
	var exit *exec.ExitError
	if errors.As(m.Err(), &exit) && exit.ExitCode() == exitStatus {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("a machine under %s did not run a boot sector within %s", a, probeLimit)
	}
	return fmt.Errorf("a machine under %s ended without running a boot sector: %w", a, m.Err())
}
