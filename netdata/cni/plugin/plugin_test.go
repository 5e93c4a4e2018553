package plugin

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

func args(t *testing.T, dir string) *skel.CmdArgs {
	t.Helper()
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "bothy", "type": "bothy-cni",
		"socket": filepath.Join(dir, "sock"), "deleted": filepath.Join(dir, "deleted"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Netns: "/n", StdinData: conf}
}

func TestWithoutAgent(t *testing.T) {
	for command, code := range map[string]uint{
		wire.Add: types.ErrTryAgainLater, wire.Check: types.ErrTryAgainLater, wire.Status: types.ErrPluginNotAvailable,
		wire.Del: 0, wire.GC: 0,
	} {
		t.Run(command, func(t *testing.T) {
			_, err := plugin{}.run(command, args(t, t.TempDir()))
			var e *types.Error
			if code == 0 && err != nil || code != 0 && (!errors.As(err, &e) || e.Code != code) {
				t.Errorf("got %v, want code %d", err, code)
			}
		})
	}
}

func TestDeletionIsNoted(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if _, err := (plugin{}).run(wire.Del, args(t, dir)); err != nil {
			t.Fatal(err)
		}
	}
	notes, err := os.ReadDir(filepath.Join(dir, "deleted"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%d notes, %v", len(notes), err)
	}
	a, ok := ParseNote(notes[0].Name())
	if !ok || a != (wire.Attachment{ContainerID: "c1", IfName: "eth0"}) {
		t.Errorf("the note says %v", a)
	}
}

func TestAgentThatIsJustRestarting(t *testing.T) {
	dir := t.TempDir()
	answered := make(chan error, 1)
	go func() {
		_, err := plugin{patience: 10 * time.Second}.run(wire.Add, args(t, dir))
		answered <- err
	}()
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(wire.Response{Error: types.NewError(types.ErrInternal, "from the agent", "")})
	}))
	var e *types.Error
	if err := <-answered; !errors.As(err, &e) || e.Msg != "from the agent" {
		t.Errorf("got %v, want the agent's own error", err)
	}
}

func TestConfigurationWithoutSocket(t *testing.T) {
	_, err := plugin{}.run(wire.Add, &skel.CmdArgs{StdinData: []byte(`{}`)})
	var e *types.Error
	if !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig {
		t.Errorf("got %v", err)
	}
}
