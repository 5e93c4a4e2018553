// Command bothy is the agent, the Kubernetes process and the command line in
// one; see package cli for the commands.
package main

import (
	"os"

	"github.com/bothy-os/bothy/agent/cli"
)

func main() {
	lookUpUsersInFiles()
	os.Exit(cli.Main())
}
