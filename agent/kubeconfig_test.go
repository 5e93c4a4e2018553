package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot"
)

// restarts says of every setting of a Cluster whether a change restarts `bothy kube`, and with it the API. The others are the
// agent's: it has none of them in the child's configuration.
var restarts = map[string]bool{
	"Metadata.Name":        false,
	"Metadata.Labels":      false,
	"Metadata.Annotations": false,

	"Spec.Network.PodCIDRs":                              true,
	"Spec.Network.ServiceCIDRs":                          true,
	"Spec.Network.NodePortRange":                         true,
	"Spec.Network.NonMasqueradeCIDRs":                    false,
	"Spec.Network.Encapsulation":                         false,
	"Spec.Network.SpliceNamespaces":                      false,
	"Spec.Network.LoadBalancer.Pools":                    false,
	"Spec.Network.DNS.Domain":                            true,
	"Spec.Network.DNS.Address":                           true,
	"Spec.Network.DNS.Upstreams":                         false,
	"Spec.ControlPlane.Port":                             true,
	"Spec.ControlPlane.JoinPort":                         true, // the agent's, but no default fits beside every Port
	"Spec.ControlPlane.ExtraSANs":                        true,
	"Spec.ControlPlane.EventTTL.Duration":                true,
	"Spec.ControlPlane.APIServer.ExtraArgs":              true,
	"Spec.ControlPlane.ControllerManager.ExtraArgs":      true,
	"Spec.ControlPlane.Scheduler.ExtraArgs":              true,
	"Spec.ControlPlane.Etcd.QuotaMiB":                    true,
	"Spec.ControlPlane.Etcd.CompactionInterval.Duration": true,
	"Spec.Security.PodSecurity.Enforce":                  true,
	"Spec.Security.PodSecurity.Warn":                     true,
	"Spec.Security.PodSecurity.Audit":                    true,
	"Spec.Security.PodSecurity.ExemptNamespaces":         true,
	"Spec.Security.Encryption.RotateEvery.Duration":      true,
	"Spec.Security.Audit.Disabled":                       true,
	"Spec.Security.Audit.MaxSizeMiB":                     true,
	"Spec.Security.Audit.MaxBackups":                     true,
	"Spec.Node.MaxPods":                                  true,
	"Spec.Node.Labels":                                   true,
	"Spec.Storage.Local.Disabled":                        true,
	"Spec.Storage.Local.ClassName":                       true,
	"Spec.Storage.Local.NotDefault":                      true,
	"Spec.Storage.Local.ReclaimPolicy":                   true,
	"Spec.GitOps.HealthTimeout.Duration":                 false,
	"Spec.GitOps.FluxAPI.Disabled":                       false,
	"Spec.GitOps.FluxAPI.NoCrossNamespaceRefs":           false,
	"Spec.GitOps.FluxAPI.DefaultServiceAccount":          false,
	"Spec.System.Sysctls":                                false,
	"Spec.System.Modules":                                false,
	"Spec.System.KernelArguments":                        false,
	"Spec.System.DNS":                                    false,
	"Spec.System.NTP":                                    false,
	"Spec.System.RevertAfter.Duration":                   false,
	"Spec.OS.Image":                                      false,
	"Spec.OS.HealthTimeout.Duration":                     false,
	"Spec.OS.Registry.Mirrors":                           false,
	"Spec.OS.Registry.CACertificates":                    false,
	"Spec.OS.Registry.PlainHTTP":                         false,
	"Spec.OS.Registry.CredentialsFile":                   false,
	"Spec.Telemetry.Tracing.Endpoint":                    false,
	"Spec.Telemetry.Tracing.CACertificates":              false,
}

func TestOnlyWhatTheChildUsesRestartsIt(t *testing.T) {
	hash := func(c *v1alpha1.Cluster) string {
		text := asJSON(t, c)
		s := &site{cluster: c, machine: v1alpha1.NewMachine("hut")}
		kube := newKubeConfig(&boot.Environment{Name: "hut"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, s, nil)
		if problems := kube.Cluster.Validate(); len(problems) > len(c.Validate()) {
			t.Errorf("the child would refuse its configuration: %v", problems)
		}
		if asJSON(t, c) != text {
			t.Error("what the agent makes use of was taken from the agent as well")
		}
		return kube.Hash()
	}
	before := hash(v1alpha1.NewCluster("hut"))
	undecided := maps.Clone(restarts)
	for _, path := range settingPaths(reflect.TypeFor[v1alpha1.Cluster](), "") {
		want, decided := restarts[path]
		if !decided {
			t.Errorf("%s is new: say in this test whether a change of it restarts `bothy kube`, and take it out in forKube if not", path)
			continue
		}
		delete(undecided, path)
		c := v1alpha1.NewCluster("hut")
		change(t, field(reflect.ValueOf(c).Elem(), path))
		if got := hash(c) != before; got != want {
			t.Errorf("%s: a change restarts the child: %t, want %t", path, got, want)
		}
	}
	for path := range undecided {
		t.Errorf("%s is no setting any more", path)
	}
}

// settingPaths are the paths of all fields that are no structs themselves. What a list holds is one setting.
func settingPaths(of reflect.Type, path string) []string {
	var out []string
	for i := range of.NumField() {
		f := of.Field(i)
		switch name := strings.TrimPrefix(path+"."+f.Name, "."); {
		case f.Name == "TypeMeta":
		case f.Type.Kind() == reflect.Struct:
			out = append(out, settingPaths(f.Type, name)...)
		default:
			out = append(out, name)
		}
	}
	return slices.Sorted(slices.Values(out))
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func field(v reflect.Value, path string) reflect.Value {
	for name := range strings.SplitSeq(path, ".") {
		v = v.FieldByName(name)
	}
	return v
}

func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"x": fmt.Sprint(v.Len())}))
	default:
		t.Fatalf("this test cannot change a %s", v.Type())
	}
}
