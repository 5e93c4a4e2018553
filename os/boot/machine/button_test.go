package machine

import (
	"encoding/binary"
	"testing"
)

func TestPowerButtonsAreKnownByTheirKeys(t *testing.T) {
	for words, want := range map[string]bool{
		"10000000000000 0\n": true, // bit 116, as of an ACPI button
		"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe": true,
		"0 0 0 10000000000000": false,
		"1":                    false,
		"":                     false,
	} {
		if hasKey(words, keyPower) != want {
			t.Errorf("%q", words)
		}
	}
}

func TestAPressIsNoRelease(t *testing.T) {
	event := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(event[16:], eventKey)
	binary.NativeEndian.PutUint16(event[18:], keyPower)
	if isPowerPressed(event) {
		t.Error("a release is taken for a press")
	}
	event[20] = pressed
	if !isPowerPressed(event) {
		t.Error("a press is not seen")
	}
}
