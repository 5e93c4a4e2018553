// Command bothy-cni is the CNI plugin of a bothy node. The container runtime
// starts it for every pod; all work is done by the agent.
package main

import "github.com/bothy-os/bothy/netdata/cni/plugin"

func main() { plugin.Main() }
