package quietlog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestPassesOnWarningsAndDemotesHarmlessOnes(t *testing.T) {
	for _, tc := range []struct {
		level slog.Level
		want  []string
		not   []string
	}{
		{slog.LevelInfo, []string{"disk is gone", "component=kubelet"}, []string{"chatter", "not registered yet"}},
		{slog.LevelDebug, []string{"disk is gone", "level=DEBUG msg=\"not registered yet\""}, []string{"chatter"}},
	} {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: tc.level}))
		logger := klog.FromContext(Context(context.Background(), log, "kubelet", "not registered yet"))
		logger.Info("chatter")
		logger.WithValues("pod", "p").Error(errors.New("no node"), "not registered yet")
		logger.Error(errors.New("EIO"), "disk is gone")
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("level %v: log lacks %q:\n%s", tc.level, want, out.String())
			}
		}
		for _, not := range tc.not {
			if strings.Contains(out.String(), not) {
				t.Errorf("level %v: log has %q:\n%s", tc.level, not, out.String())
			}
		}
	}
}
