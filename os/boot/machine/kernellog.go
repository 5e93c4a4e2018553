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
	kmsg, err := os.Open("/dev/kmsg")
	if err != nil {
		log.Warn("the kernel's log is not kept", "err", err)
		return
	}
	context.AfterFunc(ctx, func() { kmsg.Close() })
	to.Info("the machine has started", "poweredOn", poweredOn())
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
		level, text := parseRecord(string(buf[:n]))
		to.Log(ctx, level, text)
	}
}

// parseRecord takes a record apart: "priority,number,time,flags;text", and fields in lines
// of their own, which are left out. See ABI/testing/dev-kmsg of the kernel.
func parseRecord(record string) (slog.Level, string) {
	head, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	priority, _, _ := strings.Cut(head, ",")
	n, err := strconv.Atoi(priority)
	const errorSeverity, warningSeverity, severities = 3, 4, 8
	switch severity := n % severities; {
	case err != nil:
		return slog.LevelInfo, text
	case severity <= errorSeverity:
		return slog.LevelError, text
	case severity == warningSeverity:
		return slog.LevelWarn, text
	}
	return slog.LevelInfo, text
}
