// Command bothy-init is process 1 of a node; see package boot.
package main

import (
	"fmt"
	"os"

	"github.com/bothy-os/bothy/os/boot"
)

func main() {
	if err := boot.Run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "bothy-init:", err)
		os.Exit(1)
	}
}
