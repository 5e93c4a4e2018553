// The binary is static: names are looked up without the C library, which would
// look for parts of itself on the machine.
//
//go:debug netdns=go

// Command bothy is the agent, the Kubernetes process and the command line in
// one; see package cli for the commands.
package main

import (
	"os"

	"github.com/bothy-os/bothy/agent/cli"
)

func main() { os.Exit(cli.Main()) }
