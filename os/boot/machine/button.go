package machine

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// PowerOffSignal has process 1 stop everything and switch the machine off. It is the one
// that other systems' process 1 has for it.
const PowerOffSignal = syscall.Signal(38)

const (
	// Those of uapi/linux/input-event-codes.h, and the size of struct input_event.
	eventKey, keyPower = 1, 116
	eventSize          = 24
	pressed            = 1
)

// watchPowerButton switches the machine off in good order when somebody presses the
// button, or a hypervisor says so.
func watchPowerButton(ctx context.Context, log *slog.Logger) {
	keys, err := filepath.Glob("/sys/class/input/event*/device/capabilities/key")
	if err != nil {
		return
	}
	for _, file := range keys {
		data, err := os.ReadFile(file)
		if err != nil || !hasKey(string(data), keyPower) {
			continue
		}
		name := filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(file))))
		device, err := os.Open("/dev/input/" + name)
		if err != nil {
			log.Warn("a power button is not watched", "device", name, "err", err)
			continue
		}
		context.AfterFunc(ctx, func() { device.Close() })
		go func() {
			for buf := make([]byte, eventSize); ; {
				if n, err := device.Read(buf); err != nil || n != eventSize {
					return // unplugged
				}
				if isPowerPressed(buf) {
					log.Info("somebody pressed the power button")
					_ = unix.Kill(1, PowerOffSignal) // process 1 is there
				}
			}
		}()
	}
}

// hasKey looks for a bit in the notation of sysfs: words of 64 bits in hexadecimal, the
// lowest last.
func hasKey(words string, key int) bool {
	fields := strings.Fields(words)
	i := len(fields) - 1 - key/64
	if i < 0 {
		return false
	}
	word, err := strconv.ParseUint(fields[i], 16, 64)
	return err == nil && word>>(key%64)&1 == 1
}

func isPowerPressed(event []byte) bool {
	ne := binary.NativeEndian
	return ne.Uint16(event[16:]) == eventKey && ne.Uint16(event[18:]) == keyPower && ne.Uint32(event[20:]) == pressed
}
