package runtime

import (
	"context"
	"io"
	"log/slog"
	"slices"

	ctrdlog "github.com/containerd/log"
	"github.com/sirupsen/logrus"                       //nolint:depguard // containerd's logger is one of its
	logrusslog "github.com/sirupsen/logrus/hooks/slog" //nolint:depguard // the bridge from it to slog
)

// routeLog sends containerd's log to slog, from warnings up. The logger is
// containerd's own global, which is why the component runs once per process.
func routeLog(log *slog.Logger) error {
	logger := ctrdlog.L.Logger
	logger.SetOutput(io.Discard)
	logger.SetFormatter(noFormat{})
	hooks := logrus.LevelHooks{}
	hooks.Add(logrusslog.NewHook(slog.New(quiet{log.With("component", ComponentName).Handler()}), nil))
	logger.ReplaceHooks(hooks)
	return ctrdlog.SetLevel("warn")
}

// quiet demotes what containerd warns about on every ordinary machine.
type quiet struct{ slog.Handler }

// harmless are warnings about optional features of file systems.
var harmless = []string{"failed check for fsverity support"}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if slices.Contains(harmless, r.Message) {
		r.Level = slog.LevelDebug
		if !q.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return q.Handler.Handle(ctx, r)
}

// noFormat saves the work of formatting what is then discarded.
type noFormat struct{}

func (noFormat) Format(*logrus.Entry) ([]byte, error) { return nil, nil }
