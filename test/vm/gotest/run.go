package gotest

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/vm"
)

// Options say how tests are run.
type Options struct {
	// Args are further arguments, such as -test.run=PATTERN.
	Args []string
	// Env is added to the environment.
	Env []string
	// Limit is how long the tests of a package may take on this host; 1 minute if zero.
	// In a machine they may take as much longer as the machine is slower.
	Limit time.Duration
	// MaySkip matches the names of tests that may be skipped.
	MaySkip *regexp.Regexp
}

// Run runs the tests of one package in a machine whose root file system they were
// added to. Each top-level test becomes a subtest of t. Tests with deadlines of their own
// find in BOTHY_TEST_SLOWNESS how many times as long the machine takes.
func Run(t *testing.T, m *vm.Machine, b Binary, o Options) {
	t.Helper()
	limit := o.Limit
	if limit == 0 {
		limit = time.Minute
	}
	// A little before the context, so that Go says where tests hang.
	inner := m.Scale(limit)
	ctx, cancel := context.WithTimeout(t.Context(), inner+m.Scale(limit/10)+time.Minute)
	defer cancel()
	args := append([]string{b.program(), "-test.v=test2json", "-test.timeout=" + inner.String()}, o.Args...)
	start := time.Now()
	env := append([]string{fmt.Sprintf("BOTHY_TEST_SLOWNESS=%.1f", m.Slowness())}, o.Env...)
	r, err := m.Run(ctx, vm.Command{Args: args, Dir: b.workDir(), Env: env})
	tests, convertErr := convert(t.Context(), b.Package, r.Stdout)
	if convertErr != nil {
		t.Fatal(errors.Join(err, convertErr))
	}
	for _, name := range tests.order {
		tests.byName[name].report(t, o.MaySkip)
	}
	t.Logf("%s: %d tests in %.1f s", b.Name, len(tests.order), time.Since(start).Seconds())
	switch {
	case err != nil:
		t.Error(err)
	case r.Code != 0 && !t.Failed():
		t.Errorf("exit status %d, though no test failed: %s%s", r.Code, tests.output.String(), r.Stderr)
	case r.Code != 0:
		t.Logf("exit status %d: %s%s", r.Code, tests.output.String(), strings.TrimSpace(r.Stderr))
	case len(tests.order) == 0:
		t.Error("no test ran")
	}
}
