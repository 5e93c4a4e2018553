package machine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/logfile"
	"github.com/bothy-os/bothy/os/boot"
)

// keepKernelLog copies what the kernel says to a log on disk, which keeps the last
// starts of the machine; `bothy logs` shows it.
func keepKernelLog(ctx context.Context, log *slog.Logger) {
	file := logfile.Open(filepath.Join(boot.StateDir, "logs"), "kernel")
	defer file.Close()
	to := file.Logger(slog.LevelInfo)
	began := poweredOn()
	kmsg, err := os.Open("/dev/kmsg")
	if err != nil {
		log.Warn("the kernel's log is not kept", "err", err)
		return
	}
	context.AfterFunc(ctx, func() { kmsg.Close() })
	to.Info("the machine has started", "poweredOn", began)
	for buf := make([]byte, 8192); ; {
		n, err := kmsg.Read(buf)
		switch {
		case errors.Is(err, unix.EPIPE): // some were overwritten before they were read
			continue
		case err != nil:
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				log.Warn("the kernel's log is not kept any longer", "err", err)
			}
			return
		}
		r := parseRecord(string(buf[:n]))
		// A record that cannot be written is lost: the disk is full.
		_ = to.Handler().Handle(ctx, slog.NewRecord(began.Add(r.since), r.level, r.text, 0))
	}
}

// record is one line of the kernel's log.
type record struct {
	level slog.Level
	// since is how long the kernel had been running.
	since time.Duration
	text  string
}

// parseRecord takes a record apart: "priority,number,microseconds,flags;text", and fields
// in lines of their own, which are left out. See ABI/testing/dev-kmsg of the kernel.
func parseRecord(line string) record {
	head, text, _ := strings.Cut(line, ";")
	text, _, _ = strings.Cut(text, "\n")
	r := record{level: slog.LevelInfo, text: text}
	fields := strings.Split(head, ",")
	if len(fields) < 3 {
		return r
	}
	if us, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
		r.since = time.Duration(us) * time.Microsecond
	}
	const errorSeverity, warningSeverity, severities = 3, 4, 8
	n, err := strconv.Atoi(fields[0])
	switch severity := n % severities; {
	case err != nil:
	case severity <= errorSeverity:
		r.level = slog.LevelError
	case severity == warningSeverity:
		r.level = slog.LevelWarn
	}
	return r
}
