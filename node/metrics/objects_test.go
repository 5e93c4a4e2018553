package metrics

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func parse(t *testing.T, manifest []byte) map[string]*unstructured.Unstructured {
	t.Helper()
	out := map[string]*unstructured.Unstructured{}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		var o unstructured.Unstructured
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, manifest)
		}
		out[o.GetKind()+"/"+o.GetName()] = &o
	}
}

func TestSystemObjectsLeadToThisNode(t *testing.T) {
	for _, tc := range []struct{ ip, family string }{{"192.0.2.7", "IPv4"}, {"2001:db8::7", "IPv6"}} {
		objs := parse(t, SystemObjects("n1", netip.MustParseAddr(tc.ip)))
		slice := objs["EndpointSlice/metrics-server-n1"]
		if slice == nil {
			t.Fatal("no EndpointSlice of this node")
		}
		endpoints, _, _ := unstructured.NestedSlice(slice.Object, "endpoints")
		addresses, _, _ := unstructured.NestedStringSlice(endpoints[0].(map[string]any), "addresses")
		if len(addresses) != 1 || addresses[0] != tc.ip || slice.Object["addressType"] != tc.family {
			t.Errorf("endpoint %v of type %v, want %s of type %s", addresses, slice.Object["addressType"], tc.ip, tc.family)
		}
		if slice.GetLabels()["kubernetes.io/service-name"] != serviceName {
			t.Errorf("EndpointSlice belongs to service %q", slice.GetLabels()["kubernetes.io/service-name"])
		}
		api := objs["APIService/v1beta1.metrics.k8s.io"]
		name, _, _ := unstructured.NestedString(api.Object, "spec", "service", "name")
		namespace, _, _ := unstructured.NestedString(api.Object, "spec", "service", "namespace")
		if name+"."+namespace+".svc" != ServerName {
			t.Errorf("APIService leads to %s in %s, the certificate is for %s", name, namespace, ServerName)
		}
		if insecure, found, _ := unstructured.NestedBool(api.Object, "spec", "insecureSkipTLSVerify"); found || insecure {
			t.Error("the API server would not verify the certificate")
		}
	}
}

func TestSystemObjectsGrantTheUserOnly(t *testing.T) {
	manifest := SystemObjects("n1", netip.MustParseAddr("192.0.2.7"))
	if strings.Contains(string(manifest), "$(") {
		t.Errorf("a placeholder was left:\n%s", manifest)
	}
	for name, o := range parse(t, manifest) {
		if !strings.HasSuffix(o.GetKind(), "Binding") {
			continue
		}
		subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
		if len(subjects) != 1 || subjects[0].(map[string]any)["name"] != User {
			t.Errorf("%s binds %v", name, subjects)
		}
	}
}
