package maps

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/bpf"
)

// nearPlaces is NEAR_PODS of bpf/src/tables.h.
const nearPlaces = 4096

// nearPlace is where find_endpoint in bpf/src/tables.h looks first.
func nearPlace[A Words](addr A) uint32 {
	last := binary.NativeEndian.AppendUint32(nil, addr[len(addr)-1])
	return binary.BigEndian.Uint32(last) % nearPlaces
}

func readNear[A Words](f *family, place uint32) (nearRow[A], error) {
	var row nearRow[A]
	if err := f.byID["near_pods"].Lookup(place, &row); err != nil {
		return row, fmt.Errorf("read row %d of the pods' places: %w", place, err)
	}
	return row, nil
}

func writeNear[A Words](f *family, place uint32, row nearRow[A]) error {
	if err := f.byID["near_pods"].Put(place, row); err != nil {
		return fmt.Errorf("write row %d of the pods' places: %w", place, err)
	}
	return nil
}

// putNear copies the row of an endpoint to its place, unless another pod has it: the programs then
// find the row in the table of endpoints.
//
// A program reads a place in steps: it might hold the address of the one that was there against the
// interface of the one that is. So a place keeps its address when its pod goes, and before it gets
// another, whatever program may have read it has ended.
func putNear[A Words](f *family, addr A, ep bpf.IPv4Endpoint) error {
	place := nearPlace(addr)
	there, err := readNear[A](f, place)
	if err != nil {
		return err
	}
	var nobody A
	if there.Addr != addr && there.Addr != nobody {
		if there.Ep.Ifindex != 0 {
			return nil
		}
		if err := awaitPrograms(); err != nil {
			return nil //nolint:nilerr // the place stays as it is, and the pod without one
		}
	}
	return writeNear(f, place, nearRow[A]{Addr: addr, Ep: ep})
}

// deleteNear vacates the place of an address, if it has it.
func deleteNear[A Words](f *family, addr A) error {
	place := nearPlace(addr)
	there, err := readNear[A](f, place)
	if err != nil || there.Addr != addr {
		return err
	}
	return writeNear(f, place, nearRow[A]{Addr: addr})
}

// syncNear makes the places what the table of endpoints says, whoever wrote that.
func syncNear[A Words](f *family) error {
	pods := map[A]bpf.IPv4Endpoint{}
	err := each(f.byID["endpoints"], func(addr A, ep bpf.IPv4Endpoint) { pods[addr] = ep })
	var gone []A
	if err == nil {
		err = each(f.byID["near_pods"], func(_ uint32, row nearRow[A]) {
			if row.Ep.Ifindex != 0 && pods[row.Addr] != row.Ep {
				gone = append(gone, row.Addr)
			}
		})
	}
	for _, addr := range gone {
		err = errors.Join(err, deleteNear(f, addr))
	}
	for addr, ep := range pods {
		err = errors.Join(err, putNear(f, addr, ep))
	}
	if err != nil {
		return fmt.Errorf("give the pods their places: %w", err)
	}
	return nil
}

// awaitPrograms returns when every program that is running now has ended: they are readers in the
// sense of RCU, and the kernel waits for all of those.
func awaitPrograms() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("await the programs that are running: %w", errno)
	}
	return nil
}
