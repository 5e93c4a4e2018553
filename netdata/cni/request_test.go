package cni

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

func body(t testing.TB, change func(*wire.Request)) string {
	t.Helper()
	req := wire.Request{
		Command: wire.Add, ContainerID: "abc123", Netns: "/run/netns/x", IfName: "eth0",
		Args:   "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
		Config: json.RawMessage(`{"cniVersion":"1.1.0","name":"bothy","type":"bothy-cni"}`),
	}
	change(&req)
	data, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDecode(t *testing.T) {
	got, err := decode(strings.NewReader(body(t, func(r *wire.Request) {
		r.Config = json.RawMessage(`{"cniVersion":"1.1.0","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]},
			"cni.dev/valid-attachments":[{"containerID":"z","ifname":"eth0"}]}`)
	})))
	if err != nil {
		t.Fatal(err)
	}
	want := request{
		Attachment: wire.Attachment{ContainerID: "abc123", IfName: "eth0"},
		command:    wire.Add, netns: "/run/netns/x", pod: Pod{Namespace: "default", Name: "web-0", UID: "u-1"}, cniVersion: "1.1.0",
		ports: []wire.PortMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}},
		valid: []wire.Attachment{{ContainerID: "z", IfName: "eth0"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(request{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefusesWithTheCodesOfTheSpecification(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		code uint
	}{
		"not JSON":              {"{", types.ErrDecodingFailure},
		"no configuration":      {`{"command":"ADD"}`, types.ErrDecodingFailure},
		"configuration a list":  {`{"command":"ADD","config":[]}`, types.ErrDecodingFailure},
		"too large":             {strings.Repeat(" ", wire.MaxRequest+1), types.ErrDecodingFailure},
		"unknown verb":          {body(t, func(r *wire.Request) { r.Command = "MOVE" }), types.ErrInvalidEnvironmentVariables},
		"no container":          {body(t, func(r *wire.Request) { r.ContainerID = "" }), types.ErrInvalidEnvironmentVariables},
		"container is a path":   {body(t, func(r *wire.Request) { r.ContainerID = "../../etc/x" }), types.ErrInvalidEnvironmentVariables},
		"container too long":    {body(t, func(r *wire.Request) { r.ContainerID = strings.Repeat("a", 300) }), types.ErrInvalidEnvironmentVariables},
		"interface is a path":   {body(t, func(r *wire.Request) { r.IfName = "a/b" }), types.ErrInvalidEnvironmentVariables},
		"interface is loopback": {body(t, func(r *wire.Request) { r.IfName = "lo" }), types.ErrInvalidEnvironmentVariables},
		"interface too long":    {body(t, func(r *wire.Request) { r.IfName = "sixteen-letters-" }), types.ErrInvalidEnvironmentVariables},
		"no namespace":          {body(t, func(r *wire.Request) { r.Netns = "" }), types.ErrInvalidEnvironmentVariables},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(strings.NewReader(tc.body))
			if err == nil || err.Code != tc.code {
				t.Errorf("got %v, want code %d", err, tc.code)
			}
		})
	}
}

func TestDeleteNeedsNoNamespace(t *testing.T) {
	if _, err := decode(strings.NewReader(body(t, func(r *wire.Request) { r.Command, r.Netns = wire.Del, "" }))); err != nil {
		t.Error(err)
	}
}

// FuzzDecode: whatever arrives, what is accepted is fit to become part of a
// file name and of an interface's name.
func FuzzDecode(f *testing.F) {
	f.Add(body(f, func(*wire.Request) {}))
	f.Add(body(f, func(r *wire.Request) { r.Command = wire.GC }))
	f.Add(`{"command":"DEL","containerID":"..","ifName":".","config":{}}`)
	f.Fuzz(func(t *testing.T, in string) {
		req, err := decode(strings.NewReader(in))
		if err != nil || req.command == wire.GC || req.command == wire.Status {
			return
		}
		for _, s := range []string{req.ContainerID, req.IfName} {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/@\x00") {
				t.Errorf("accepted %q", s)
			}
		}
		if len(devName(req.Attachment)) > 15 {
			t.Errorf("interface name %q is too long", devName(req.Attachment))
		}
	})
}
