package boot

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestAgentIsNeverLeftAloneForLong(t *testing.T) {
	if d := agentDelay(1); d != agentBackoffMin {
		t.Errorf("first restart after %s", d)
	}
	last := time.Duration(0)
	for failures := 1; failures < 100; failures++ {
		d := agentDelay(failures)
		if d < last || d > agentBackoffMax {
			t.Fatalf("after %d failures: %s, before that %s", failures, d, last)
		}
		last = d
	}
	if last != agentBackoffMax {
		t.Errorf("the longest pause is %s", last)
	}
}

func TestOnlyProcessOneRuns(t *testing.T) {
	err := Run(strings.NewReader("{}"))
	if err == nil || !strings.Contains(err.Error(), "bothy up") {
		t.Errorf("%v", err)
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

func TestRelativeLinksOfResolvConf(t *testing.T) {
	for in, want := range map[string]string{"/run/x/resolv.conf": "../run/x/resolv.conf", "../run/y": "../run/y"} {
		if got := relative(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
