package etcd

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger carries etcd's warnings and errors over. What etcd would end the
// process for becomes a panic, which the caller can turn into an error.
func newLogger(c *core) *zap.Logger {
	return zap.New(c, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// expected are parts of lines that say nothing.
var expected = []string{
	// Before the first commit of a new database etcd does not find its own
	// version in it, and looks again later.
	"Failed to detect schema version",
	"failed to update storage version",
	// A lone member tries to become leader so soon that its own membership is
	// not applied yet, and tries again a moment later.
	"pending configuration changes to apply",
}

func isExpected(message string) bool {
	return slices.ContainsFunc(expected, func(part string) bool { return strings.Contains(message, part) })
}

// core is a zapcore.Core that writes to slog.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
	// closing mutes everything below a panic.
	closing *atomic.Bool
}

func (c *core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.fields = append(append([]zapcore.Field(nil), c.fields...), fields...)
	return &with
}

func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if entry.Level <= zapcore.ErrorLevel && (c.closing.Load() || isExpected(entry.Message)) {
		return nil
	}
	level := slog.LevelWarn
	if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	values := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(values)
	}
	attrs := make([]slog.Attr, 0, len(values.Fields))
	for k, v := range values.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	if entry.Level > zapcore.ErrorLevel {
		// If this happens in a goroutine of etcd's, it is the process's last word.
		attrs = append(attrs, slog.String("remedy", remedy))
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+entry.Message, attrs...)
	return nil
}

func (c *core) Sync() error { return nil }
