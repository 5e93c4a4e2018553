package appliance

import (
	"bytes"
	"io"
	"log/slog"
	"os"
)

// newLog writes to the kernel's log, where everything about the start of a machine is in
// one place, also what happened before there was a disk. Without one it writes to the
// console.
func newLog(who string) *slog.Logger {
	var out io.Writer = os.Stderr
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		out = &kmsg{f, who}
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey { // the kernel has its own
			return slog.Attr{}
		}
		return a
	}}))
}

// kmsg makes each line one record of the kernel's log.
type kmsg struct {
	w   io.Writer
	who string
}

func (k *kmsg) Write(p []byte) (int, error) {
	priority := "<6>"
	switch {
	case bytes.HasPrefix(p, []byte("level=ERROR")):
		priority = "<3>"
	case bytes.HasPrefix(p, []byte("level=WARN")):
		priority = "<4>"
	}
	if _, err := io.WriteString(k.w, priority+k.who+": "+string(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}
