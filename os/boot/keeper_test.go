package boot

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestServicesAreStartedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "starts")
	again := func() (*exec.Cmd, error) { return exec.Command("sh", "-c", "echo . >> "+file), nil }
	never := func() (*exec.Cmd, error) {
		t.Error("started without being asked for")
		return exec.Command("true"), nil
	}
	k := NewKeeper(slog.New(slog.DiscardHandler), Service{"again", again}, Service{"never", never})
	k.Start("again")
	ended := make(chan os.Signal)
	go func() { ended <- k.Run(unix.SIGUSR2) }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		data, _ := os.ReadFile(file)
		if strings.Count(string(data), ".") >= 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("started %d times", strings.Count(string(data), "."))
		}
	}
	if err := unix.Kill(os.Getpid(), unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if sig := <-ended; sig != unix.SIGUSR2 {
		t.Errorf("ended with %s", sig)
	}
	if last := k.find("again").pid; last > 0 {
		var status unix.WaitStatus
		_, _ = unix.Wait4(last, &status, 0, nil) // the next test counts the dead
	}
}

func TestAgentIsNeverLeftAloneForLong(t *testing.T) {
	if d := delay(1); d != backoffMin {
		t.Errorf("first restart after %s", d)
	}
	last := time.Duration(0)
	for failures := 1; failures < 100; failures++ {
		d := delay(failures)
		if d < last || d > backoffMax {
			t.Fatalf("after %d failures: %s, before that %s", failures, d, last)
		}
		last = d
	}
	if last != backoffMax {
		t.Errorf("the longest pause is %s", last)
	}
}

func TestReapTellsHowAProcessEnded(t *testing.T) {
	for script, want := range map[string]string{"exit 3": "exit status 3", "kill -KILL $$": "killed by killed"} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var dead []death
		for deadline := time.Now().Add(10 * time.Second); len(dead) == 0 && time.Now().Before(deadline); {
			dead = reap()
		}
		if len(dead) != 1 || dead[0].pid != cmd.Process.Pid || dead[0].describe() != want {
			t.Errorf("%s: %+v", script, dead)
		}
	}
}
