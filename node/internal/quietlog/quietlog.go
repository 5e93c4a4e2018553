// Package quietlog brings the log of upstream libraries to slog, without the
// chatter.
//
// Upstream components say at level info what they do; what an operator needs
// is on API objects and in events. [Context] returns a context whose klog
// logger passes on warnings and errors only, and those that belong to every
// healthy start at level debug: a log in which errors mean nothing is not read.
package quietlog

import (
	"context"
	"log/slog"
	"slices"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Context returns ctx with a klog logger that writes warnings and worse to
// log, marked with the component's name. Messages that equal one of harmless
// are written at level debug.
func Context(ctx context.Context, log *slog.Logger, component string, harmless ...string) context.Context {
	h := handler{Handler: log.With("component", component).Handler(), harmless: harmless}
	return klog.NewContext(ctx, logr.FromSlogHandler(h))
}

type handler struct {
	slog.Handler
	harmless []string
}

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if slices.Contains(h.harmless, r.Message) {
		r.Level = slog.LevelDebug
		if !h.Handler.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.harmless}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.harmless}
}
