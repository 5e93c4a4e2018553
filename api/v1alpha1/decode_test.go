package v1alpha1

import (
	"strings"
	"testing"
	"time"
)

const clusterHead = "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: site\n"

func TestClusterDefaults(t *testing.T) {
	c, err := DecodeCluster("cluster.yaml", []byte(clusterHead+"spec:\n  network:\n    serviceCIDRs: [10.112.0.0/16]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Spec.Network.DNS.Address; got != "10.112.0.10" {
		t.Errorf("DNS address %s", got)
	}
	if c.Spec.ControlPlane.Port != 6443 || c.Spec.Security.PodSecurity.Enforce != "baseline" || c.Spec.Security.Encryption.RotateEvery.Duration != 2160*time.Hour {
		t.Errorf("%+v", c.Spec)
	}
	if problems := NewCluster("x").Validate(); len(problems) > 0 {
		t.Errorf("the defaults are not valid: %v", problems)
	}
}

// Every refusal names file, line, field, and what to do where that is not
// obvious.
func TestBadClusters(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", clusterHead + "spec:\n  netwrk: {}\n", `c.yaml:6: spec.netwrk: unknown field; did you mean "network"?`},
		{"unknown nested field", clusterHead + "spec:\n  network:\n    podCIDR: 10.0.0.0/8\n", `c.yaml:7: spec.network.podCIDR: unknown field; did you mean "podCIDRs"?`},
		{"wrong type", clusterHead + "spec:\n  controlPlane:\n    port: high\n", `c.yaml:7: spec.controlPlane.port: must be a whole number, not the string "high"`},
		{"list for mapping", clusterHead + "spec: []\n", "c.yaml:5: spec: must be a mapping, not a list"},
		{"unquoted", clusterHead + "spec:\n  network:\n    nodePortRange: 30000\n", `c.yaml:7: spec.network.nodePortRange: must be a string, not the number 30000; put it in quotes`},
		{"duplicate key", clusterHead + "spec:\n  node: {}\n  node: {}\n", "c.yaml:7: spec.node: duplicate key, first given on line 6; keep one of them"},
		{"bad duration", clusterHead + "spec:\n  controlPlane:\n    eventTTL: 5 minutes\n", `c.yaml:7: spec.controlPlane.eventTTL: must be a duration such as "30s" or "24h", not "5 minutes"`},
		{"wrong kind", "apiVersion: bothy.dev/v1alpha1\nkind: Clutser\nmetadata: {name: x}\nspec: {}\n", `c.yaml:2: kind: must be "Cluster", not "Clutser"; write kind: Cluster`},
		{"two documents", clusterHead + "spec: {}\n---\na: b\n", "c.yaml:6: holds a second document; keep one document in this file"},
		{"alias", clusterHead + "spec:\n  network: &n {}\n", "c.yaml:6: spec.network: anchors and aliases are not allowed; write the value out"},
		{"syntax", "apiVersion: [", "c.yaml:1:"},
		{"empty", "# nothing\n", "c.yaml: is empty; write the document or delete the file"},
		{"overlap", clusterHead + "spec:\n  network:\n    podCIDRs:\n    - 10.96.0.0/12\n", "c.yaml:6: spec.network.serviceCIDRs[0]: 10.96.0.0/16 overlaps the pod range 10.96.0.0/12; choose ranges that do not overlap"},
		{"host bits", clusterHead + "spec:\n  network:\n    podCIDRs:\n    - 10.244.1.0/16\n", `c.yaml:8: spec.network.podCIDRs[0]: "10.244.1.0/16" has bits set beyond its prefix; write "10.244.0.0/16"`},
		{"health timeout", clusterHead + "spec:\n  gitOps:\n    healthTimeout: 10ms\n", "c.yaml:7: spec.gitOps.healthTimeout: must be at least 1s, not 10ms; write a duration such as 5m"},
		{"collector", clusterHead + "spec:\n  telemetry:\n    tracing:\n      endpoint: collector:4317\n", `c.yaml:8: spec.telemetry.tracing.endpoint: "collector:4317" is not the address of a collector; write https://host:4318`},
		{"level", clusterHead + "spec:\n  security:\n    podSecurity:\n      enforce: strict\n", `c.yaml:8: spec.security.podSecurity.enforce: "strict" is not allowed; write one of privileged, baseline, restricted`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeCluster("c.yaml", []byte(c.text))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllProblemsAreReportedInOrder(t *testing.T) {
	_, err := DecodeCluster("c.yaml", []byte(clusterHead+"spec:\n  a: 1\n  node: {maxPods: x}\n  b: 2\n"))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "c.yaml:6: spec.a") || !strings.HasPrefix(lines[1], "c.yaml:7: spec.node.maxPods") || !strings.HasPrefix(lines[2], "c.yaml:8: spec.b") {
		t.Errorf("%s", err)
	}
}

func TestTrustRoot(t *testing.T) {
	const head = "apiVersion: bothy.dev/v1alpha1\nkind: TrustRoot\n"
	good := head + "version: 1\nsigners:\n- {name: alice, kind: ssh, publicKey: ssh-ed25519 AAAA}\nrules:\n- {signers: [alice], paths: [\"**\"]}\n"
	r, err := DecodeTrustRoot("root.yaml", []byte(good))
	if err != nil || r.Rules[0].Threshold != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	for want, text := range map[string]string{
		"root.yaml:4: signers: is empty":                                      head + "version: 1\nsigners: []\n",
		"root.yaml:3: version: must be at least 1":                            head + "version: 0\nsigners:\n- {name: a, kind: ssh, publicKey: k}\n",
		`root.yaml:6: signers[1].name: signer "a" is listed twice`:            head + "version: 1\nsigners:\n- {name: a, kind: ssh, publicKey: k}\n- {name: a, kind: ssh, publicKey: l}\n",
		`root.yaml:5: signers[0].kind: "rsa" is not allowed`:                  head + "version: 1\nsigners:\n- {name: a, kind: rsa, publicKey: k}\n",
		`root.yaml:7: rules[0].signers[0]: "bob" is not one of the signers`:   head + "version: 1\nsigners:\n- {name: a, kind: ssh, publicKey: k}\nrules:\n- {signers: [bob], paths: [\"**\"]}\n",
		`root.yaml:7: rules[0].paths[0]: "../x" is not a clean relative path`: head + "version: 1\nsigners:\n- {name: a, kind: ssh, publicKey: k}\nrules:\n- {signers: [a], paths: [../x]}\n",
	} {
		if _, err := DecodeTrustRoot("root.yaml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestBootConfigFailsClosed(t *testing.T) {
	const head = "apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\nrepository: {url: \"file:///srv/site.git\", path: clusters/a}\n"
	if _, err := DecodeBootConfig("boot.yaml", []byte(head+"trust: {}\n")); err == nil || !strings.Contains(err.Error(), "no trust root is configured") {
		t.Errorf("no trust: %v", err)
	}
	b, err := DecodeBootConfig("boot.yaml", []byte(head+"trust: {none: true}\n"))
	if err != nil || !b.Trust.None || b.Repository.Branch != "main" {
		t.Errorf("%+v %v", b, err)
	}
	for _, url := range []string{"http://h/r.git", "https://user:pw@h/r.git", "ftp://h/r.git"} {
		text := strings.Replace(head, "file:///srv/site.git", url, 1) + "trust: {none: true}\n"
		if _, err := DecodeBootConfig("boot.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "boot.yaml:3: repository.url") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzDecodeCluster(f *testing.F) {
	f.Add([]byte(clusterHead + "spec: {network: {podCIDRs: [10.0.0.0/16]}}\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeCluster("c.yaml", data)
		if err == nil && len(c.Validate()) > 0 {
			t.Error("accepted a cluster that is not valid")
		}
	})
}
