// Package cli holds the commands of bothy as people use them.
//
// Each command is one file: flags, one call, output. Results go to standard
// output and everything else to standard error, so that `-o json` can be
// piped. Colour and redrawing are used on a terminal only. Errors say what to
// do next. The package must not decide anything about a node: it asks the
// agent over its socket, or the sandbox.
package cli
