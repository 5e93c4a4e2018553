// Package network has a node's network live through what networks have to: its agent
// dies and is replaced, Kubernetes goes away, Services and endpoints flap, callers
// send nonsense. Connections are made and counted by the test itself, from inside the
// networks of real pods, so that none goes unaccounted.
package network

import (
	"os"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

var shared cluster.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// patience is for what takes seconds on an idle machine and many on one that runs these
// tests in parallel.
const patience = 90 * time.Second
