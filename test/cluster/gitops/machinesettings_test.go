package gitops

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
)

// machineSettings is what a test reads of `bothy machine settings -o json`.
type machineSettings struct {
	InForce struct{ Commit string }
	Trial   *struct{ Commit string }
	Undone  *struct{ Commit, Reason string }
	Ignored []string
}

func (s *site) settings(ctx context.Context) (*machineSettings, error) {
	r, err := s.node.Bothy(ctx, nil, "machine", "settings", "-o", "json")
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("bothy machine settings: %s", r.Stderr)
	}
	m := &machineSettings{}
	return m, json.Unmarshal([]byte(r.Stdout), m)
}

// On a machine that does other things, too, a node has the settings that are its own, and says
// that it does not touch the others.
func TestANodeSetsWhatIsItsOwn(t *testing.T) {
	s := newSite(t, false)
	const own, shared = "/proc/sys/net/ipv4/tcp_keepalive_time", "/proc/sys/vm/swappiness"
	before := read(t, own) + read(t, shared)
	push := func(keepalive string) string {
		s.repo.Write(t, s.repo.Path+"/machines/"+s.node.Status(t).Node.Name+".yaml", fmt.Sprintf(`apiVersion: bothy.dev/v1alpha1
kind: Machine
metadata: {name: %s}
spec:
  system:
    sysctls: {net.ipv4.tcp_keepalive_time: %q, vm.swappiness: "3"}
    modules: [wireguard]
`, s.node.Status(t).Node.Name, keepalive))
		return s.repo.Push(t, "keepalive "+keepalive, cluster.Signed)
	}
	inNode := func() string {
		ns, err := s.node.Namespace()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		var data []byte
		// What /proc/sys/net shows follows the thread that reads it.
		if err := ns.Do(func() error { data, err = os.ReadFile(own); return err }); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	good := push("321")
	cluster.Eventually(t, patience, "the settings to be in force", func() error {
		m, err := s.settings(t.Context())
		if err == nil && (m.InForce.Commit != good || m.Trial != nil) {
			err = fmt.Errorf("%+v", m)
		}
		return err
	})
	if got := inNode(); got != "321" {
		t.Errorf("the node has %s", got)
	}
	m, err := s.settings(t.Context())
	if err != nil || strings.Join(m.Ignored, ", ") != "sysctl vm.swappiness, modules" {
		t.Errorf("%+v, %v", m, err)
	}

	// The kernel does not take it: the old value is back and the commit says so.
	bad := push("never")
	cluster.Eventually(t, patience, "the commit to be marked", func() error {
		m, err := s.settings(t.Context())
		if err == nil && (m.Undone == nil || m.Undone.Commit != bad || !strings.Contains(m.Undone.Reason, "the kernel does not take the value")) {
			err = fmt.Errorf("%+v", m)
		}
		return err
	})
	if got := inNode(); got != "321" {
		t.Errorf("the node has %s", got)
	}
	cluster.Eventually(t, patience, "the Flux API to show it", func() error {
		ready, err := s.kube.In("flux-system").Field(t.Context(), "kustomizations.kustomize.toolkit.fluxcd.io/flux-system", `{.status.conditions[?(@.type=="Ready")].message}`)
		if !strings.Contains(ready, "were undone") {
			return fmt.Errorf("it says %q, %w", ready, err)
		}
		return nil
	})
	if after := read(t, own) + read(t, shared); after != before {
		t.Errorf("the machine's own settings were %q and are %q", before, after)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
