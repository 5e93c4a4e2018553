package enforce

import (
	"testing"

	"github.com/bothy-os/bothy/images/internal/imagetest"
)

func TestMain(m *testing.M) { imagetest.Main(m) }

// TestWithoutNetwork: whatever is asked of containerd, the judgement of an image opens no socket. Pulling is the one
// point that does, to fetch signatures before it judges.
func TestWithoutNetwork(t *testing.T) {
	if imagetest.Alone() {
		t.Skip("is alone already")
	}
	if err := imagetest.WithoutSockets(t, "^(TestContainers|TestSwappedManifest|TestIndex|TestUpdates|TestTasks|TestNamesAndVolumes|TestLayers|TestAdmit)$"); err != nil {
		t.Error(err)
	}
	if err := imagetest.WithoutSockets(t, "^TestPulls$"); !imagetest.KilledForASocket(err) {
		t.Errorf("pulling, which asks a registry: %v", err)
	}
}
