// Package gotest runs the Go tests of the source tree inside virtual machines
// and reports each of them as a subtest.
//
// A test that is skipped in a machine is a failure unless the caller expects it:
// machines are made to have what tests need, and a suite that skips proves nothing.
//
// build.go: compiling; run.go: running; report.go: from test2json to subtests.
package gotest
