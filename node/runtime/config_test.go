package runtime

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"
)

func testConfig() Config {
	return Config{
		Root: "/state/containerd", State: "/run/node/containerd", Socket: "/run/node/containerd.sock",
		BinDir: "/opt/bothy", CNIConfDir: "/run/node/cni", RegistryDir: "/state/registries", SandboxImage: "bothy.local/pause:1",
	}
}

func registered() map[string]plugin.Registration {
	out := map[string]plugin.Registration{}
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		out[r.URI()] = r
	}
	return out
}

// TestEveryPluginKnowsItsSettings decodes the configuration into containerd's
// own types and refuses unknown keys, which containerd would only warn about.
func TestEveryPluginKnowsItsSettings(t *testing.T) {
	plugins := registered()
	for id, settings := range testConfig().serverConfig(machine{snapshotter: overlayfs}).Plugins {
		p, ok := plugins[id]
		if !ok {
			t.Errorf("there is no plugin %s", id)
			continue
		}
		encoded, err := toml.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		into := reflect.New(reflect.TypeOf(p.Config).Elem()).Interface()
		if err := toml.NewDecoder(bytes.NewReader(encoded)).DisallowUnknownFields().Decode(into); err != nil {
			t.Errorf("plugin %s: %v\n%s", id, err, encoded)
		}
	}
}

func TestDisabledAndRequiredPluginsExist(t *testing.T) {
	plugins := registered()
	for _, snapshotter := range []string{overlayfs, native} {
		c := testConfig().serverConfig(machine{snapshotter: snapshotter})
		for _, id := range slices.Concat(c.DisabledPlugins, c.RequiredPlugins) {
			if _, ok := plugins[id]; !ok {
				t.Errorf("there is no plugin %s", id)
			}
		}
		for _, id := range c.RequiredPlugins {
			if slices.Contains(c.DisabledPlugins, id) {
				t.Errorf("%s is required and disabled", id)
			}
		}
		if slices.Contains(c.DisabledPlugins, snapshotters+snapshotter) {
			t.Errorf("the snapshotter %s is disabled", snapshotter)
		}
	}
}

// TestNothingRegistersCollectorsOfEtcd guards against a panic at start that
// depends on which of the two comes first.
func TestNothingRegistersCollectorsOfEtcd(t *testing.T) {
	disabled := testConfig().serverConfig(machine{snapshotter: overlayfs}).DisabledPlugins
	for id, p := range registered() {
		if p.Type == "io.containerd.metrics.v1" && !slices.Contains(disabled, id) {
			t.Errorf("%s is enabled", id)
		}
	}
}

func TestConfigurationOfTheMachine(t *testing.T) {
	get := func(m machine, path ...string) any {
		var v any = testConfig().serverConfig(m).Plugins
		for _, key := range path {
			v = v.(map[string]any)[key]
		}
		return v
	}
	strong, weak := machine{overlayfs, true}, machine{native, false}
	for _, tc := range []struct {
		m    machine
		path []string
		want any
	}{
		{strong, []string{criRuntime, "restrict_oom_score_adj"}, false},
		{weak, []string{criRuntime, "restrict_oom_score_adj"}, true},
		{strong, []string{criImages, "snapshotter"}, "overlayfs"},
		{weak, []string{criImages, "snapshotter"}, "native"},
		{strong, []string{criImages, "pinned_images", "sandbox"}, "bothy.local/pause:1"},
		{strong, []string{criRuntime, "cni", "use_internal_loopback"}, true},
		{strong, []string{criRuntime, "containerd", "runtimes", "runc", "options", "BinaryName"}, "/opt/bothy/runc"},
		{strong, []string{criService, "disable_tcp_service"}, true},
		{strong, []string{ttrpcServer, "address"}, "/run/node/containerd.sock.ttrpc"},
	} {
		if got := get(tc.m, tc.path...); got != tc.want {
			t.Errorf("%v on %+v is %v, want %v", tc.path, tc.m, got, tc.want)
		}
	}
}
