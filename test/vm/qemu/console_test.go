package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestConsoleIsKeptAndWaitedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console")
	c, err := newConsole(file)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for _, part := range []string{"boo", "ting\nlog", "in: "} {
			_, _ = c.Write([]byte(part))
		}
	}()
	if got, err := c.Wait(t.Context(), regexp.MustCompile(`log.n: `)); err != nil || got != "login: " {
		t.Errorf("%q, %v", got, err)
	}
	if data, _ := os.ReadFile(file); string(data) != "booting\nlogin: " {
		t.Errorf("kept %q", data)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := c.Wait(ctx, regexp.MustCompile("never")); !errors.Is(err, enough) {
		t.Errorf("waiting in vain: %v", err)
	}
	c.close()
	if _, err := c.Wait(t.Context(), regexp.MustCompile("never")); err == nil {
		t.Error("a machine that is off is waited for")
	}
}

func TestOnlyTheEndOfComplaintsIsKept(t *testing.T) {
	complaints := &tail{limit: 5}
	for _, p := range []string{"abc", "defg", "hi"} {
		_, _ = complaints.Write([]byte(p))
	}
	if got := complaints.String(); got != "efghi" {
		t.Errorf("kept %q", got)
	}
}
