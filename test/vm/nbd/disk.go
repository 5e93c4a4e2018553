package nbd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
)

// blockSize is what is lost or kept, in bytes.
const blockSize = 4096

// Disk is a file with a write cache before it.
type Disk struct {
	file *os.File
	size int64

	mu sync.Mutex
	// cache has blocks that were not flushed.
	cache map[int64][]byte
	// off is set when the power is gone.
	off           bool
	flushes, lost int
}

// Open returns the disk with the content of a file.
func Open(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if st.Size()%blockSize != 0 {
		f.Close()
		return nil, fmt.Errorf("%s has %d bytes, no whole number of blocks of %d", path, st.Size(), blockSize)
	}
	return &Disk{file: f, size: st.Size(), cache: map[int64][]byte{}}, nil
}

// errOff is what is said to a machine after its power is gone.
var errOff = errors.New("the power is gone")

// each visits the blocks that a range touches: their number, and the part of them.
func each(at int64, p []byte, visit func(block int64, from int, piece []byte) error) error {
	for len(p) > 0 {
		block, from := at/blockSize, int(at%blockSize)
		n := min(blockSize-from, len(p))
		if err := visit(block, from, p[:n]); err != nil {
			return err
		}
		at, p = at+int64(n), p[n:]
	}
	return nil
}

func (d *Disk) readAt(p []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at < 0 || at+int64(len(p)) > d.size {
		return fmt.Errorf("read %d bytes at %d of %d", len(p), at, d.size)
	}
	if _, err := d.file.ReadAt(p, at); err != nil {
		return err
	}
	return each(at, p, func(block int64, from int, piece []byte) error {
		if b := d.cache[block]; b != nil {
			copy(piece, b[from:])
		}
		return nil
	})
}

// writeAt keeps what is written in the cache, or with through, as a machine may ask for, on
// the disk.
func (d *Disk) writeAt(p []byte, at int64, through bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at < 0 || at+int64(len(p)) > d.size {
		return fmt.Errorf("write %d bytes at %d of %d", len(p), at, d.size)
	}
	if d.off {
		return errOff
	}
	return each(at, p, func(block int64, from int, piece []byte) error {
		b := d.cache[block]
		if b == nil {
			b = make([]byte, blockSize)
			if len(piece) < blockSize {
				if _, err := d.file.ReadAt(b, block*blockSize); err != nil {
					return err
				}
			}
			d.cache[block] = b
		}
		copy(b[from:], piece)
		if !through {
			return nil
		}
		delete(d.cache, block)
		_, err := d.file.WriteAt(b, block*blockSize)
		return err
	})
}

func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return errOff
	}
	d.flushes++
	return d.drain(func() bool { return true })
}

// drain empties the cache; keep says for each block whether it gets to the disk.
func (d *Disk) drain(keep func() bool) error {
	for block, b := range d.cache {
		if keep() {
			if _, err := d.file.WriteAt(b, block*blockSize); err != nil {
				return err
			}
		} else {
			d.lost++
		}
	}
	clear(d.cache)
	return nil
}

// Cut is the loss of power: of what was not flushed each block is on the disk with a chance of
// kept. It returns how many blocks were in the cache, and how many of them are lost. The machine
// has to be dead.
func (d *Disk) Cut(kept float64) (cached, lost int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, cached, d.lost = true, len(d.cache), 0
	err = d.drain(func() bool { return rand.Float64() < kept })
	return cached, d.lost, err
}

// On brings the power back.
func (d *Disk) On() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = false
}

// Flushes is how often the machine has flushed the cache.
func (d *Disk) Flushes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flushes
}

// Close writes what is in the cache and lets go of the file.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.drain(func() bool { return true })
	if failed := d.file.Close(); err == nil {
		err = failed
	}
	return err
}
