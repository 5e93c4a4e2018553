// Package verity is the format of dm-verity: a tree of hashes behind a file system, whose
// root hash vouches for every block of it. The image builder makes trees, the first stage
// of the boot finds the one that it was told the root hash of.
//
// The layout is that of `veritysetup format`, version 1 of the hash format, with sha256
// and blocks of 4 KiB; see admin-guide/device-mapper/verity.rst in the documentation of
// the kernel. The superblock and the tree follow the data on the same device.
//
// It must not know about devices; package boot/stage1 tells the kernel.
package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// BlockSize of data and of hashes, in bytes.
const BlockSize = 4096

const (
	magic      = "verity\x00\x00"
	saltOffset = 88
	saltSize   = 256
)

// Hash names a tree.
type Hash [sha256.Size]byte

// String is the notation in which it is on the kernel's command line.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what [Hash.String] writes.
func ParseHash(s string) (Hash, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != sha256.Size {
		return Hash{}, fmt.Errorf("%q is no sha256 of 64 hexadecimal digits", s)
	}
	return Hash(raw), nil
}

// Superblock describes a tree.
type Superblock struct {
	// Blocks of data.
	Blocks uint64
	Salt   []byte
	UUID   [16]byte
}

// Append writes the tree for data, which fills whole blocks, behind it, and returns the
// root hash.
func Append(w io.Writer, data []byte, salt []byte, uuid [16]byte) (Hash, error) {
	if len(data) == 0 || len(data)%BlockSize != 0 {
		return Hash{}, fmt.Errorf("%d bytes of data are no whole number of blocks of %d bytes", len(data), BlockSize)
	}
	sb := Superblock{Blocks: uint64(len(data) / BlockSize), Salt: salt, UUID: uuid}
	if _, err := w.Write(sb.encode()); err != nil {
		return Hash{}, err
	}
	levels, root := tree(data, salt)
	for i := len(levels) - 1; i >= 0; i-- {
		if _, err := w.Write(levels[i]); err != nil {
			return Hash{}, err
		}
	}
	return root, nil
}

// tree hashes blocks, then the blocks that the hashes fill, until one hash is left. The
// first level is that of the data.
func tree(data, salt []byte) (levels [][]byte, root Hash) {
	level := data
	for {
		hashes := make([]byte, 0, len(level)/BlockSize*sha256.Size)
		for b := level; len(b) > 0; b = b[BlockSize:] {
			h := hashBlock(b[:BlockSize], salt)
			hashes = append(hashes, h[:]...)
		}
		if len(hashes) == sha256.Size {
			return levels, Hash(hashes)
		}
		if over := len(hashes) % BlockSize; over != 0 {
			hashes = append(hashes, make([]byte, BlockSize-over)...)
		}
		levels = append(levels, hashes)
		level = hashes
	}
}

func hashBlock(block, salt []byte) Hash {
	h := sha256.New()
	h.Write(salt)
	h.Write(block)
	return Hash(h.Sum(nil))
}

func (s *Superblock) encode() []byte {
	b := make([]byte, BlockSize)
	le := binary.LittleEndian
	copy(b, magic)
	le.PutUint32(b[8:], 1)  // version of the superblock
	le.PutUint32(b[12:], 1) // of the hash format
	copy(b[16:], s.UUID[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], BlockSize)
	le.PutUint32(b[68:], BlockSize)
	le.PutUint64(b[72:], s.Blocks)
	le.PutUint16(b[80:], uint16(len(s.Salt)))
	copy(b[saltOffset:saltOffset+saltSize], s.Salt)
	return b
}

// Size is how many bytes data, superblock and tree take together.
func (s *Superblock) Size() int64 {
	const perBlock = BlockSize / sha256.Size
	total := s.Blocks + 1
	for level := s.Blocks; level > 1; {
		level = (level + perBlock - 1) / perBlock
		total += level
	}
	return int64(total) * BlockSize
}

// Find reads the superblock behind blocks of data on a device and returns it if the root
// hash is that of the tree that follows. A tree of other data is an error; the data
// itself is not read.
func Find(device io.ReaderAt, blocks uint64, root Hash) (*Superblock, error) {
	b := make([]byte, 2*BlockSize)
	if _, err := device.ReadAt(b, int64(blocks)*BlockSize); err != nil {
		return nil, fmt.Errorf("read the verity superblock behind %d blocks: %w", blocks, err)
	}
	sb, err := decode(b)
	if err != nil {
		return nil, err
	}
	if sb.Blocks != blocks {
		return nil, fmt.Errorf("the tree is for %d blocks of data, not for %d", sb.Blocks, blocks)
	}
	if got := hashBlock(b[BlockSize:], sb.Salt); got != root {
		return nil, fmt.Errorf("the root hash is %s, not %s", got, root)
	}
	return sb, nil
}

// Check reads all data on a device, and its tree, and says whether they are what the root hash
// vouches for.
func Check(ctx context.Context, device io.ReaderAt, blocks uint64, root Hash) error {
	sb, err := Find(device, blocks, root)
	if err != nil {
		return err
	}
	// The lowest level from the data; the others follow from it.
	level := make([]byte, 0, blocks*sha256.Size)
	buffer := make([]byte, checkBlocks*BlockSize)
	for at := uint64(0); at < blocks; at += checkBlocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece := buffer[:min(checkBlocks, blocks-at)*BlockSize]
		if _, err := device.ReadAt(piece, int64(at)*BlockSize); err != nil {
			return fmt.Errorf("read block %d: %w", at, err)
		}
		for ; len(piece) > 0; piece = piece[BlockSize:] {
			h := hashBlock(piece[:BlockSize], sb.Salt)
			level = append(level, h[:]...)
		}
	}
	if over := len(level) % BlockSize; over != 0 {
		level = append(level, make([]byte, BlockSize-over)...)
	}
	levels, got := tree(level, sb.Salt)
	if got != root {
		return fmt.Errorf("the data has the root hash %s, not %s", got, root)
	}
	// The tree is what the kernel compares with: it has to be there, too, highest level first.
	levels = append([][]byte{level}, levels...)
	at := int64(blocks+1) * BlockSize
	for i := len(levels) - 1; i >= 0; i-- {
		stored := make([]byte, len(levels[i]))
		if _, err := device.ReadAt(stored, at); err != nil {
			return fmt.Errorf("read the tree: %w", err)
		}
		if !bytes.Equal(stored, levels[i]) {
			return fmt.Errorf("level %d of the tree is not that of the data", i)
		}
		at += int64(len(stored))
	}
	return nil
}

// checkBlocks is how many blocks are read at once.
const checkBlocks = 256

func decode(b []byte) (*Superblock, error) {
	le := binary.LittleEndian
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, fmt.Errorf("no verity superblock")
	}
	if le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1 || string(b[32:39]) != "sha256\x00" || le.Uint32(b[64:]) != BlockSize || le.Uint32(b[68:]) != BlockSize {
		return nil, fmt.Errorf("the verity superblock asks for another format than sha256 over blocks of %d bytes", BlockSize)
	}
	salt := int(le.Uint16(b[80:]))
	if salt > saltSize {
		return nil, fmt.Errorf("the verity superblock has a salt of %d bytes, more than there is room for", salt)
	}
	return &Superblock{Blocks: le.Uint64(b[72:]), Salt: bytes.Clone(b[saltOffset : saltOffset+salt]), UUID: [16]byte(b[16:32])}, nil
}

// Table is the line that tells the device mapper to check a device; device is its name
// or its numbers.
func (s *Superblock) Table(device string, root Hash) string {
	return fmt.Sprintf("1 %[1]s %[1]s %[2]d %[2]d %[3]d %[4]d sha256 %[5]s %[6]s 1 panic_on_corruption",
		device, BlockSize, s.Blocks, s.Blocks+1, root, saltText(s.Salt))
}

func saltText(salt []byte) string {
	if len(salt) == 0 {
		return "-"
	}
	return hex.EncodeToString(salt)
}
