package v1alpha1

import (
	"fmt"
	"strings"
	"testing"
)

const (
	someIdentity  = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	otherIdentity = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"
	thirdIdentity = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI"
)

func machineFile(name, spec string) MachineFile {
	text := fmt.Sprintf("apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: %s}\nspec:\n%s", name, spec)
	return MachineFile{Path: name + ".yaml", Data: []byte(text)}
}

func TestMachinesOfASite(t *testing.T) {
	cp := machineFile("cp", "  identity: "+someIdentity+"\n  addresses: [192.0.2.1, \"2001:db8::1\"]\n")
	worker := machineFile("w", "  role: worker\n  identity: "+otherIdentity+"\n")
	all, err := DecodeMachines([]MachineFile{cp, worker})
	if err != nil || len(all) != 2 || all[0].IsWorker() || !all[1].IsWorker() {
		t.Fatalf("%v, %v", all, err)
	}
	if _, err := DecodeMachines([]MachineFile{machineFile("alone", "  labels: {a: b}\n")}); err != nil {
		t.Errorf("a control plane without identity: %v", err)
	}
	for _, c := range []struct {
		name  string
		files []MachineFile
		want  string
	}{
		{"no identity", []MachineFile{cp, machineFile("w", "  role: worker\n")}, "w.yaml:4: spec.identity: is missing: a worker joins by it; copy what"},
		{"another kind of fingerprint", []MachineFile{machineFile("m", "  identity: MD5:00\n")}, `m.yaml:5: spec.identity: "MD5:00" is not the fingerprint of a machine; copy what`},
		{"too short", []MachineFile{machineFile("m", "  identity: SHA256:AAAA\n")}, "m.yaml:5: spec.identity: "},
		{"bits beyond the end", []MachineFile{machineFile("m", "  identity: "+someIdentity[:len(someIdentity)-1]+"B\n")}, "m.yaml:5: spec.identity: "},
		{"padded", []MachineFile{machineFile("m", "  identity: "+someIdentity+"=\n")}, "m.yaml:5: spec.identity: "},
		{"no address", []MachineFile{machineFile("m", "  addresses: [shelf]\n")}, `m.yaml:5: spec.addresses[0]: "shelf" cannot be the address of a node`},
		{"loopback", []MachineFile{machineFile("m", "  addresses: [192.0.2.1, 127.0.0.1]\n")}, "m.yaml:5: spec.addresses[1]: "},
		{"zone", []MachineFile{machineFile("m", "  addresses: [\"fe80::1%eth0\"]\n")}, "m.yaml:5: spec.addresses[0]: "},
		{"a name twice", []MachineFile{cp, {Path: "again.yaml", Data: machineFile("cp", "  labels: {}\n").Data}}, "again.yaml:3: metadata.name: cp is that of the Machine in cp.yaml; keep it in one of the two files"},
		{"an identity twice", []MachineFile{cp, worker, machineFile("x", "  role: worker\n  identity: "+otherIdentity+"\n")}, "x.yaml:6: spec.identity: " + otherIdentity + " is that of the Machine in w.yaml"},
		{"an address twice", []MachineFile{cp, machineFile("x", "  role: worker\n  identity: "+thirdIdentity+"\n  addresses: [\"::ffff:192.0.2.1\"]\n")}, "x.yaml:7: spec.addresses[0]: 192.0.2.1 is that of the Machine in cp.yaml"},
		{"nobody to join", []MachineFile{worker}, "w.yaml:5: spec.role: a worker needs a control plane, but no Machine of role control-plane has"},
		{"a control plane without address", []MachineFile{machineFile("cp", "  identity: "+someIdentity+"\n"), worker}, "w.yaml:5: spec.role: a worker needs a control plane"},
		{"a control plane without identity", []MachineFile{machineFile("cp", "  addresses: [192.0.2.1]\n"), worker}, "w.yaml:5: spec.role: a worker needs a control plane"},
		{"role", []MachineFile{machineFile("m", "  role: master\n")}, `m.yaml:5: spec.role: "master" is not allowed; write one of control-plane, worker`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := DecodeMachines(c.files)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || got != nil {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestPortOfTheJoinEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"joinPort: 6443":  "is the API server's",
		"joinPort: 30080": "node port range",
		"joinPort: 10250": "the kubelet",
		"joinPort: 70000": "must be 1 to 65535",
	} {
		_, err := DecodeCluster("c.yaml", []byte(clusterHead+"spec:\n  controlPlane:\n    "+text+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "c.yaml:7: spec.controlPlane.joinPort: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := DecodeCluster("c.yaml", []byte(clusterHead+"spec:\n  controlPlane:\n    joinPort: 7443\n")); err != nil {
		t.Error(err)
	}
}
