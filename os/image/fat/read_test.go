package fat

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	boot := bytes.Repeat([]byte("boot file "), 12345)
	v := &Volume{Size: MinSize, Label: "ESP", Time: time.Unix(1<<30, 0), Files: []File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: boot}, {Path: "EFI/BOOT/a longer name", Data: []byte("x")}, {Path: "README.TXT", Data: []byte("hello")},
	}}
	if err := errors.Join(f.Truncate(v.Size), v.Write(f)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{"EFI/BOOT/BOOTX64.EFI": boot, "readme.txt": []byte("hello")} {
		if got, err := ReadFile(f, path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	if _, err := ReadFile(f, "EFI/BOOT/OTHER.EFI"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := ReadFile(bytes.NewReader(make([]byte, 4096)), "x"); err == nil {
		t.Error("zeros are a file system")
	}
}
