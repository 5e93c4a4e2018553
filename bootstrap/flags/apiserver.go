package flags

import (
	"strconv"

	"github.com/bothy-os/bothy/bootstrap/paths"
)

// plugins are the admission plugins on top of upstream's defaults.
// NodeRestriction keeps a node's credentials to its own objects.
// DenyServiceExternalIPs closes CVE-2020-8554, for which there is no fix.
var plugins = []string{"NodeRestriction", "DenyServiceExternalIPs"}

// gates turn off what a single API server only pays for: a lease rewritten
// every ten seconds to tell other API servers that this one exists.
var gates = []string{"APIServerIdentity=false", "UnknownVersionInteroperabilityProxy=false"}

// cipherSuites are the forward-secret AEAD suites of TLS 1.2 for an ECDSA key.
// Those of TLS 1.3 are not configurable and all good.
var cipherSuites = []string{
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
	"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}

func apiServer(in Input) *list {
	p, spec := in.Paths, in.Cluster.Spec
	l := &list{
		refused: refuseEverywhere(),
		appended: map[string]bool{
			"enable-admission-plugins": true, "feature-gates": true,
		},
	}

	// Listening. Loopback is not served: whoever can reach it is local anyway,
	// and the aggregator and the kubelet need the node's address.
	l.set("bind-address", in.NodeIP.String())
	l.set("advertise-address", in.NodeIP.String())
	l.set("secure-port", strconv.Itoa(spec.ControlPlane.Port))
	l.set("tls-cert-file", p.APIServerServing())
	l.set("tls-private-key-file", p.APIServerServing())
	l.set("tls-min-version", "VersionTLS12")
	l.set("tls-cipher-suites", join(cipherSuites))
	l.set("profiling", "false")

	// Who somebody is.
	l.set("client-ca-file", p.ClusterCA())
	l.set("authentication-config", p.AuthenticationConfig())
	l.set("service-account-issuer", "https://kubernetes.default.svc."+spec.Network.DNS.Domain)
	l.set("service-account-key-file", p.ServiceAccountPublicKey())
	l.set("service-account-signing-key-file", p.ServiceAccountKey())
	l.set("service-account-lookup", "true")
	l.set("service-account-extend-token-expiration", "false") // an hour means an hour, not a year
	l.refuse("anonymous access is limited to the health endpoints", "anonymous-auth")
	l.refuse("static tokens cannot be revoked or renewed", "token-auth-file")
	l.refuse("users have certificates and service accounts have tokens", "authentication-token-webhook-config-file", "oidc-issuer-url")

	// What they may do.
	l.set("authorization-mode", "Node,RBAC")
	l.refuse("authorization is Node and RBAC", "authorization-config", "authorization-policy-file", "authorization-webhook-config-file")
	l.set("enable-admission-plugins", join(plugins))
	l.set("admission-control-config-file", p.AdmissionConfig())
	l.refuse("the default admission plugins are part of the security defaults", "disable-admission-plugins", "admission-control")
	l.set("allow-privileged", "true") // limited by Pod Security admission

	// Storage.
	l.set("etcd-servers", "unix://"+p.EtcdSocket())
	l.set("etcd-compaction-interval", spec.ControlPlane.Etcd.CompactionInterval.String())
	l.refuse("etcd is embedded", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-servers-overrides", "etcd-prefix", "storage-backend")
	l.set("encryption-provider-config", p.EncryptionConfig())
	l.set("encryption-provider-config-automatic-reload", "true")
	l.set("event-ttl", spec.ControlPlane.EventTTL.String())

	// Audit.
	if spec.Security.Audit.Disabled {
		l.refuse("the audit log is turned off by spec.security.audit.disabled", "audit-policy-file", "audit-log-path")
	} else {
		l.set("audit-policy-file", p.AuditPolicy())
		l.set("audit-log-path", p.AuditLog())
		l.set("audit-log-maxsize", strconv.Itoa(spec.Security.Audit.MaxSizeMiB))
		l.set("audit-log-maxbackup", strconv.Itoa(spec.Security.Audit.MaxBackups))
	}

	// Towards kubelets: verified, and with an identity that can do nothing else.
	l.set("kubelet-client-certificate", p.APIServerKubeletClient())
	l.set("kubelet-client-key", p.APIServerKubeletClient())
	l.set("kubelet-certificate-authority", p.ClusterCA())
	l.set("kubelet-preferred-address-types", "InternalIP")

	// Towards aggregated API servers, straight to their endpoints: they work
	// before Services do.
	l.set("requestheader-client-ca-file", p.RequestHeaderCA())
	l.set("requestheader-allowed-names", paths.FrontProxyName)
	l.set("requestheader-username-headers", "X-Remote-User")
	l.set("requestheader-group-headers", "X-Remote-Group")
	l.set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
	l.set("proxy-client-cert-file", p.FrontProxyClient())
	l.set("proxy-client-key-file", p.FrontProxyClient())
	l.set("enable-aggregator-routing", "true")

	// Services. The endpoints of the kubernetes Service are constant here and
	// applied once; upstream's reconciler would rewrite a lease every ten
	// seconds and take the endpoints away during each restart.
	l.set("service-cluster-ip-range", join(spec.Network.ServiceCIDRs))
	l.set("service-node-port-range", spec.Network.NodePortRange)
	l.set("endpoint-reconciler-type", "none")
	l.set("feature-gates", join(gates))
	return l
}

func (l *list) refuse(reason string, names ...string) {
	for _, name := range names {
		l.refused[name] = reason
	}
}
