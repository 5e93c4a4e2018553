// Package logfile gives each process of a node one structured log on disk,
// rotated by size, so that a site's flash neither fills up nor wears out.
//
// Lines are JSON with the keys time, level, msg, process and, where they
// apply, wing and component; `bothy logs` reads them, with or without a
// running node.
package logfile

import (
	"log/slog"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"
)

const (
	maxSizeMB  = 10
	maxBackups = 2
)

// File is an open log.
type File struct {
	rotating *lumberjack.Logger
	process  string
}

// Open starts or continues dir/process.log.
func Open(dir, process string) *File {
	return &File{
		process:  process,
		rotating: &lumberjack.Logger{Filename: filepath.Join(dir, process+".log"), MaxSize: maxSizeMB, MaxBackups: maxBackups},
	}
}

// Logger returns a logger that drops what is below level.
func (f *File) Logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(f.rotating, &slog.HandlerOptions{Level: level, ReplaceAttr: readable})).With("process", f.process)
}

// readable writes durations as "1.5s" and not as nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Close ends the log.
func (f *File) Close() error { return f.rotating.Close() }
