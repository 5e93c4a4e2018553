// Package cuttest is a disk for tests that loses power: what was written and not synced may
// be there or not, sector by sector.
package cuttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// ErrCut is what every access says once the power is gone.
var ErrCut = errors.New("the power is gone")

const sector = 512

// Power is what several disks and other things hang on. It goes after a number of steps.
type Power struct {
	// left is how many steps there are; negative for no end.
	left  int
	gone  bool
	Steps int
}

// NewPower lasts for so many steps; negative for ever.
func NewPower(steps int) *Power { return &Power{left: steps} }

// Step is taken before each change that can be seen afterwards.
func (p *Power) Step() error {
	if p == nil {
		return nil
	}
	if p.gone || p.left == 0 {
		p.gone = true
		return ErrCut
	}
	p.left--
	p.Steps++
	return nil
}

// Gone says that the power is gone.
func (p *Power) Gone() bool { return p.gone }

// Disk is in memory.
type Disk struct {
	power *Power
	// stable is what is on the disk, seen what a reader sees.
	stable, seen []byte
	// pending are the sectors that differ.
	pending map[int64]bool
}

// New returns a disk with content.
func New(power *Power, content []byte) *Disk {
	return &Disk{power: power, stable: bytes.Clone(content), seen: bytes.Clone(content), pending: map[int64]bool{}}
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, at int64) (int, error) {
	if d.power != nil && d.power.gone {
		return 0, ErrCut
	}
	if at < 0 || at > int64(len(d.seen)) {
		return 0, fmt.Errorf("read at %d of %d", at, len(d.seen))
	}
	n := copy(p, d.seen[at:])
	if n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (d *Disk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.power.Step(); err != nil {
		return 0, err
	}
	if at < 0 || at+int64(len(p)) > int64(len(d.seen)) {
		return 0, fmt.Errorf("write %d bytes at %d of %d", len(p), at, len(d.seen))
	}
	copy(d.seen[at:], p)
	for s := at / sector; s*sector < at+int64(len(p)); s++ {
		d.pending[s] = true
	}
	return len(p), nil
}

// Sync makes what was written stay.
func (d *Disk) Sync() error {
	if err := d.power.Step(); err != nil {
		return err
	}
	for s := range d.pending {
		copy(d.stable[s*sector:(s+1)*sector], d.seen[s*sector:])
	}
	clear(d.pending)
	return nil
}

// Close implements io.Closer.
func (*Disk) Close() error { return nil }

// Size in bytes.
func (d *Disk) Size() int64 { return int64(len(d.seen)) }

// AfterCut is the disk as somebody may find it: of what was not synced each sector is there
// with the given probability.
func (d *Disk) AfterCut(power *Power, chance float64) *Disk {
	out := New(power, d.stable)
	for s := range d.pending {
		if rand.Float64() < chance {
			copy(out.stable[s*sector:(s+1)*sector], d.seen[s*sector:])
		}
	}
	copy(out.seen, out.stable)
	return out
}
