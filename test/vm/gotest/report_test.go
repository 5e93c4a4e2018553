package gotest

import (
	"strings"
	"testing"
)

func TestVerdictsOfAProgramThatCrashed(t *testing.T) {
	const mark = "\x16"
	output := mark + "=== RUN   TestGood\n" + mark + "--- PASS: TestGood (0.01s)\n" +
		mark + "=== RUN   TestBad\n    a_test.go:7: wrong\n" + mark + "--- FAIL: TestBad (0.01s)\n" +
		mark + "=== RUN   TestSkipped\n    a_test.go:9: no root\n" + mark + "--- SKIP: TestSkipped (0.00s)\n" +
		mark + "=== RUN   TestCrash\n" + mark + "=== RUN   TestCrash/part\npanic: boom\n"
	all, err := convert(t.Context(), "example.org/a", output)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"TestGood": "pass", "TestBad": "fail", "TestSkipped": "skip"}
	for name, verdict := range want {
		if r := all.byName[name]; r == nil || r.verdict != verdict {
			t.Errorf("%s: %+v, want %s", name, r, verdict)
		}
	}
	// test2json counts what never ended as failed.
	crash := all.byName["TestCrash"]
	if crash == nil || crash.verdict == "pass" || crash.verdict == "skip" || !strings.Contains(crash.output.String(), "boom") {
		t.Errorf("TestCrash: %+v", crash)
	}
	if got := strings.Join(all.order, " "); got != "TestGood TestBad TestSkipped TestCrash" {
		t.Errorf("order: %s", got)
	}
}
