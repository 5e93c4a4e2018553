package efi

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/bothy-os/bothy/os/gpt"
)

func option() Option {
	return Option{Description: "bothy", Number: 1, Path: "EFI/A.EFI", Partition: gpt.Partition{
		GUID: gpt.MustParseGUID("11223344-5566-7788-99aa-bbccddeeff00"), First: 2048, Last: 4095,
	}}
}

// As in sections 3.1.3 and 10.3.5 of the specification.
func TestEncode(t *testing.T) {
	want, err := hex.DecodeString("01000000" + "4800" + "62006f007400680079000000" + // active, length of the path, description
		"04012a00" + "01000000" + "0008000000000000" + "0008000000000000" + "4433221166558877" + "99aabbccddeeff00" + "0202" +
		"04041a00" + "5c004500460049005c0041002e004500460049000000" + "7fff0400")
	if err != nil {
		t.Fatal(err)
	}
	if got := option().encode(); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestStartOnce(t *testing.T) {
	v := Variables{Dir: t.TempDir()}
	if v.Available() == nil || v.StartOnce(option()) == nil {
		t.Fatal("a machine without variables can be told something")
	}
	put := func(name string, value ...byte) {
		if err := os.WriteFile(filepath.Join(v.Dir, name+"-"+globalVariable), append([]byte{6, 0, 0, 0}, value...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("SecureBoot", 1)
	put("BootOrder", 1, 0)
	put("Boot0B00", Option{Description: "somebody else's", Path: "X"}.encode()...)
	if !v.SecureBoot() {
		t.Error("Secure Boot is not seen")
	}
	if pending, err := v.Pending("bothy"); pending || err != nil {
		t.Errorf("%v, %v", pending, err)
	}
	for range 2 {
		if err := v.StartOnce(option()); err != nil {
			t.Fatal(err)
		}
	}
	next, err := v.read(bootNext)
	if err != nil || !bytes.Equal(next, []byte{1, 0x0b}) {
		t.Errorf("BootNext is %x, %v", next, err)
	}
	if pending, err := v.Pending("bothy"); !pending || err != nil {
		t.Errorf("%v, %v", pending, err)
	}
	if order, err := v.read("BootOrder"); err != nil || !bytes.Equal(order, []byte{1, 0}) {
		t.Errorf("the order was changed: %x, %v", order, err)
	}
	for description, want := range map[string]bool{"bothy": true, "another": false} {
		if keeps, err := v.Keeps(description); keeps != want || err != nil {
			t.Errorf("%s: %v, %v", description, keeps, err)
		}
	}
	if err := v.Cancel("another"); err != nil {
		t.Fatal(err)
	}
	if pending, _ := v.Pending("bothy"); !pending {
		t.Error("what is somebody else's was cancelled")
	}
	if err := v.Cancel("bothy"); err != nil {
		t.Fatal(err)
	}
	if pending, err := v.Pending("bothy"); pending || err != nil {
		t.Errorf("%v, %v", pending, err)
	}
}
