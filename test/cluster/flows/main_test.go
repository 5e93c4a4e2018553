// Package flows shows, on a real node, what an operator sees who asks where packets go: the
// flows and net commands beside real pods and Services.
package flows

import (
	"os"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

var shared cluster.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
