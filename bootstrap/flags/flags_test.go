package flags

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/paths"
)

func input() Input {
	return Input{
		Paths:   paths.Paths{StateDir: "/state", RunDir: "/run/bothy"},
		NodeIP:  netip.MustParseAddr("192.0.2.10"),
		Cluster: v1alpha1.NewCluster("site"),
	}
}

func build(t *testing.T, in Input) Args {
	t.Helper()
	args, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return args
}

// TestSecurityDefaults pins what a reviewer relies on. Whoever changes a line
// here changes docs/security.md too.
func TestSecurityDefaults(t *testing.T) {
	args := build(t, input())
	for component, want := range map[string][]string{
		"apiserver": {
			"--bind-address=192.0.2.10",
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction,DenyServiceExternalIPs",
			"--admission-control-config-file=/run/bothy/control-plane/admission.json",
			"--authentication-config=/run/bothy/control-plane/authentication.json",
			"--client-ca-file=/state/pki/ca.crt",
			"--requestheader-client-ca-file=/state/pki/front-proxy-ca.crt",
			"--requestheader-allowed-names=bothy:front-proxy",
			"--kubelet-certificate-authority=/state/pki/ca.crt",
			"--kubelet-client-certificate=/state/pki/apiserver-kubelet-client.pem",
			"--kubelet-client-key=/state/pki/apiserver-kubelet-client.pem",
			"--encryption-provider-config=/run/bothy/control-plane/encryption.json",
			"--encryption-provider-config-automatic-reload=true",
			"--audit-policy-file=/run/bothy/control-plane/audit-policy.yaml",
			"--audit-log-path=/state/audit/audit.log",
			"--audit-log-maxsize=20",
			"--audit-log-maxbackup=5",
			"--tls-min-version=VersionTLS12",
			"--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
			"--tls-cert-file=/state/pki/apiserver.pem",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-extend-token-expiration=false",
			"--service-account-lookup=true",
			"--etcd-servers=unix:///run/bothy/etcd/etcd.sock",
			"--profiling=false",
			"--event-ttl=1h0m0s",
		},
		"controller-manager": {
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=/state/pki/sa.key",
			"--root-ca-file=/state/pki/ca.crt",
			"--secure-port=0", "--leader-elect=false", "--profiling=false",
			"--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16,fd62:6f74:6879:f400::/56", "--node-cidr-mask-size-ipv4=24",
			"--kube-api-qps=500", "--kube-api-burst=1000",
		},
		"scheduler": {"--secure-port=0", "--leader-elect=false", "--profiling=false", "--kubeconfig=/state/pki/scheduler.kubeconfig"},
	} {
		got := map[string][]string{"apiserver": args.APIServer, "controller-manager": args.ControllerManager, "scheduler": args.Scheduler}[component]
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: no %s in\n%s", component, w, strings.Join(got, "\n"))
			}
		}
	}
}

func TestNoFlagTwice(t *testing.T) {
	args := build(t, input())
	for _, list := range [][]string{args.APIServer, args.ControllerManager, args.Scheduler} {
		seen := map[string]bool{}
		for _, arg := range list {
			name, _, _ := strings.Cut(arg, "=")
			if seen[name] {
				t.Errorf("%s is set twice", name)
			}
			seen[name] = true
		}
	}
}

func TestSettings(t *testing.T) {
	in := input()
	in.Cluster.Spec.ControlPlane.Port = 7443
	in.Cluster.Spec.Security.Audit.Disabled = true
	in.Cluster.Spec.Network.PodCIDRs = []string{"10.1.0.0/26", "fd00::/48"}
	in.Cluster.Spec.Network.ServiceCIDRs = []string{"10.2.0.0/20", "fd01::/112"}
	args := build(t, in)
	for _, w := range []string{"--secure-port=7443", "--service-cluster-ip-range=10.2.0.0/20,fd01::/112"} {
		if !slices.Contains(args.APIServer, w) {
			t.Errorf("no %s", w)
		}
	}
	for _, w := range []string{"--node-cidr-mask-size-ipv4=26", "--node-cidr-mask-size-ipv6=64", "--cluster-cidr=10.1.0.0/26,fd00::/48"} {
		if !slices.Contains(args.ControllerManager, w) {
			t.Errorf("no %s", w)
		}
	}
	for _, arg := range args.APIServer {
		if strings.HasPrefix(arg, "--audit") {
			t.Errorf("audit is disabled, but there is %s", arg)
		}
	}
}

func TestExtraArgsAreMerged(t *testing.T) {
	in := input()
	in.Cluster.Spec.ControlPlane.APIServer.ExtraArgs = map[string]string{
		"max-requests-inflight":    "100",
		"enable-admission-plugins": "AlwaysPullImages",
		"feature-gates":            "WatchList=true",
		"runtime-config":           "api/beta=true",
	}
	in.Cluster.Spec.ControlPlane.ControllerManager.ExtraArgs = map[string]string{"node-monitor-period": "7s"}
	args := build(t, in)
	for _, w := range []string{
		"--max-requests-inflight=100", "--runtime-config=api/beta=true",
		"--enable-admission-plugins=NodeRestriction,DenyServiceExternalIPs,AlwaysPullImages",
		"--feature-gates=APIServerIdentity=false,UnknownVersionInteroperabilityProxy=false,WatchList=true",
	} {
		if !slices.Contains(args.APIServer, w) {
			t.Errorf("no %s in\n%s", w, strings.Join(args.APIServer, "\n"))
		}
	}
	if !slices.Contains(args.ControllerManager, "--node-monitor-period=7s") {
		t.Error("the controller manager's flag is missing")
	}
}

func TestOwnedFlagsAreRefusedByField(t *testing.T) {
	for _, flag := range []string{
		"authorization-mode", "anonymous-auth", "token-auth-file", "client-ca-file", "bind-address", "etcd-servers", "etcd-prefix",
		"disable-admission-plugins", "encryption-provider-config", "tls-min-version", "profiling", "audit-log-path", "authorization-config",
		"service-account-issuer", "allow-privileged", "v", "kubeconfig", "emulated-version", "--secure-port", "a=b", "",
	} {
		in := input()
		in.Cluster.Spec.ControlPlane.APIServer.ExtraArgs = map[string]string{flag: "x"}
		_, err := Build(in)
		var field *v1alpha1.FieldError
		if !errors.As(err, &field) {
			t.Errorf("%q was accepted: %v", flag, err)
			continue
		}
		if want := "spec.controlPlane.apiServer.extraArgs." + flag; field.Field != want {
			t.Errorf("%q: the error names %s", flag, field.Field)
		}
		if field.Remedy == "" {
			t.Errorf("%q: no remedy in %v", flag, err)
		}
	}
}

func TestAllProblemsAreReported(t *testing.T) {
	cluster := v1alpha1.NewCluster("site")
	cluster.Spec.ControlPlane.APIServer.ExtraArgs = map[string]string{"profiling": "true"}
	cluster.Spec.ControlPlane.ControllerManager.ExtraArgs = map[string]string{"root-ca-file": "x"}
	cluster.Spec.ControlPlane.Scheduler.ExtraArgs = map[string]string{"config": "x", "leader-elect": "true"}
	err := Validate(cluster)
	for _, want := range []string{"apiServer.extraArgs.profiling", "controllerManager.extraArgs.root-ca-file", "scheduler.extraArgs.config", "scheduler.extraArgs.leader-elect"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}
