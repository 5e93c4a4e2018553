package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/bothy-os/bothy/internal/logfile"
)

// useUpstreamLog sends what upstream components and the standard library log
// to the process's log. Upstream's errors are kept; its warnings are mostly
// about choices that were made on purpose here.
func useUpstreamLog(file *logfile.File) {
	logger := slog.New(harmless{file.Logger(slog.LevelError).With("wing", "kubernetes").Handler()})
	klog.SetSlogLogger(logger)
	slog.SetDefault(logger)
}

// harmless drops errors that every start has and that mean nothing.
type harmless struct{ slog.Handler }

// harmlessMessages begin what is dropped.
var harmlessMessages = []string{
	"The manifest file is empty, ignoring",         // discovery before the first CRD
	"Found stale data, removed previous endpoints", // the endpoint reconciler is off
	"Unable to get all supported resources",        // the metrics API comes up a moment later
	"Error during resource discovery",              // likewise
	"Initial discovery check failure",              // likewise
}

func (h harmless) Handle(ctx context.Context, r slog.Record) error {
	if slices.ContainsFunc(harmlessMessages, func(m string) bool { return strings.HasPrefix(r.Message, m) }) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h harmless) WithAttrs(attrs []slog.Attr) slog.Handler {
	return harmless{h.Handler.WithAttrs(attrs)}
}

func (h harmless) WithGroup(name string) slog.Handler { return harmless{h.Handler.WithGroup(name)} }
