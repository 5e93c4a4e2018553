// Command bothy-init is process 1 of a node, and what starts a machine of bothy's own; see
// package appliance.
package main

import (
	"os"

	"github.com/bothy-os/bothy/os/boot/appliance"
)

func main() { os.Exit(appliance.Main(os.Args, os.Stdin)) }
