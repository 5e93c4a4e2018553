package verity

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var salt = []byte("0123456789abcdef")

// image is data that needs three levels of hashes, with its tree.
func image(t *testing.T) (data, whole []byte, root Hash) {
	t.Helper()
	data = make([]byte, 20000*BlockSize)
	for i := range data {
		data[i] = byte(i / 1000)
	}
	var tail bytes.Buffer
	root, err := Append(&tail, data, salt, [16]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return data, append(bytes.Clone(data), tail.Bytes()...), root
}

func TestTheTreeIsFoundByItsRootHashOnly(t *testing.T) {
	data, whole, root := image(t)
	blocks := uint64(len(data) / BlockSize)
	sb, err := Find(bytes.NewReader(whole), blocks, root)
	if err != nil || sb.Blocks != blocks || !bytes.Equal(sb.Salt, salt) {
		t.Fatalf("%+v, %v", sb, err)
	}
	other := root
	other[0] ^= 1
	if _, err := Find(bytes.NewReader(whole), blocks, other); err == nil {
		t.Error("found under another root hash")
	}
	if _, err := Find(bytes.NewReader(whole), blocks-1, root); err == nil {
		t.Error("found behind fewer blocks")
	}
	whole[len(data)+BlockSize+5] ^= 1
	if _, err := Find(bytes.NewReader(whole), blocks, root); err == nil {
		t.Error("found although the top of the tree was changed")
	}
}

func TestCheckSeesEveryByte(t *testing.T) {
	data, whole, root := image(t)
	blocks := uint64(len(data) / BlockSize)
	if err := Check(t.Context(), bytes.NewReader(whole), blocks, root); err != nil {
		t.Fatal(err)
	}
	// In the data, in the superblock's neighbourhood, in each level of the tree.
	for _, at := range []int{0, 12345678, len(data) - 1, len(data) + BlockSize + 1, len(data) + 2*BlockSize + 1, len(whole) - BlockSize} {
		whole[at] ^= 1
		if err := Check(t.Context(), bytes.NewReader(whole), blocks, root); err == nil {
			t.Errorf("a change at %d is not seen", at)
		}
		whole[at] ^= 1
	}
	if err := Check(t.Context(), bytes.NewReader(whole[:len(whole)-BlockSize]), blocks, root); err == nil {
		t.Error("the end of the tree is missing, and nobody sees it")
	}
}

func TestOneByteChangesTheRootHash(t *testing.T) {
	data, _, root := image(t)
	data[12345678] ^= 1
	var tail bytes.Buffer
	if changed, err := Append(&tail, data, salt, [16]byte{1, 2, 3}); err != nil || changed == root {
		t.Errorf("%s, %v", changed, err)
	}
	if _, err := Append(&tail, data[:BlockSize+1], salt, [16]byte{}); err == nil {
		t.Error("half a block is accepted")
	}
}

func TestHashesAreReadAsTheyAreWritten(t *testing.T) {
	_, _, root := image(t)
	if got, err := ParseHash(root.String()); err != nil || got != root {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("x", 64)} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// What veritysetup, which is how others make and check trees, says of ours.
func TestVeritysetupAgrees(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("veritysetup is not installed")
	}
	data, whole, root := image(t)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	offset := "--hash-offset=" + strconv.Itoa(len(data))
	if out, err := exec.Command(tool, "verify", offset, file, file, root.String()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
