package boot

import (
	"strings"
	"testing"
)

func TestOnlyProcessOneRuns(t *testing.T) {
	err := Run(strings.NewReader("{}"))
	if err == nil || !strings.Contains(err.Error(), "bothy up") {
		t.Errorf("%v", err)
	}
}

func TestRelativeLinksOfResolvConf(t *testing.T) {
	for in, want := range map[string]string{"/run/x/resolv.conf": "../run/x/resolv.conf", "../run/y": "../run/y"} {
		if got := relative(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
