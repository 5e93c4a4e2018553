package paths

import "path/filepath"

// Paths names the files of the control plane.
type Paths struct {
	// StateDir survives reboots.
	StateDir string
	// RunDir is emptied at node start.
	RunDir string
}

// PKI is the directory of keys, certificates and kubeconfigs, mode 0700.
func (p Paths) PKI() string { return filepath.Join(p.StateDir, "pki") }

// Etcd is the data directory of the embedded etcd, mode 0700.
func (p Paths) Etcd() string { return filepath.Join(p.StateDir, "etcd") }

// Audit is the directory of the API server's audit log, mode 0700.
func (p Paths) Audit() string { return filepath.Join(p.StateDir, "audit") }

// AuditLog is the audit log being written; rotated files lie beside it.
func (p Paths) AuditLog() string { return filepath.Join(p.Audit(), "audit.log") }

// EtcdSockets is the directory of etcd's sockets, mode 0700: whoever can
// connect may read and write the whole cluster.
func (p Paths) EtcdSockets() string { return filepath.Join(p.RunDir, "etcd") }

// EtcdSocket is where etcd serves clients.
func (p Paths) EtcdSocket() string { return filepath.Join(p.EtcdSockets(), "etcd.sock") }

// EtcdHTTPSocket is where etcd serves its health and metrics.
func (p Paths) EtcdHTTPSocket() string { return filepath.Join(p.EtcdSockets(), "etcd-http.sock") }

// FlexVolumes is where the controller manager looks for volume plugins of a
// kind that is no longer made; it would otherwise create a directory in the
// host's /usr.
func (p Paths) FlexVolumes() string { return filepath.Join(p.Config(), "flexvolumes") }

// Roster is the list of enrolled machines. There is none while the site enrols nobody.
func (p Paths) Roster() string { return filepath.Join(p.StateDir, "machine", "roster.json") }

// ClusterCA is the certificate of the CA that signs serving and client
// certificates. It is public.
func (p Paths) ClusterCA() string { return filepath.Join(p.PKI(), "ca.crt") }

// ClusterCAKey is the private key of the cluster CA.
func (p Paths) ClusterCAKey() string { return filepath.Join(p.PKI(), "ca.key") }

// RequestHeaderCA is the certificate of the front-proxy CA. An aggregated API
// server accepts the user named in request headers only from a client whose
// certificate this CA signed and whose common name is FrontProxyName.
func (p Paths) RequestHeaderCA() string { return filepath.Join(p.PKI(), "front-proxy-ca.crt") }

// RequestHeaderCAKey is the private key of the front-proxy CA.
func (p Paths) RequestHeaderCAKey() string { return filepath.Join(p.PKI(), "front-proxy-ca.key") }

// FrontProxyName is the common name of the API server's certificate towards
// aggregated API servers.
const FrontProxyName = "bothy:front-proxy"

// ServiceAccountKey signs service account tokens.
func (p Paths) ServiceAccountKey() string { return filepath.Join(p.PKI(), "sa.key") }

// ServiceAccountPublicKey verifies service account tokens.
func (p Paths) ServiceAccountPublicKey() string { return filepath.Join(p.PKI(), "sa.pub") }

// APIServerServing is the API server's serving certificate and key.
func (p Paths) APIServerServing() string { return p.Certificate("apiserver") }

// APIServerKubeletClient is the API server's certificate towards kubelets.
func (p Paths) APIServerKubeletClient() string { return p.Certificate("apiserver-kubelet-client") }

// FrontProxyClient is the API server's certificate towards aggregated API
// servers.
func (p Paths) FrontProxyClient() string { return p.Certificate("front-proxy-client") }

// KubeletServing is the kubelet's serving certificate and key, for
// TLSCertFile as well as TLSPrivateKeyFile. The kubelet reloads it when it
// changes.
func (p Paths) KubeletServing() string { return p.Certificate("kubelet-serving") }

// Certificate is the key and certificate of an identity or of a requested
// serving certificate.
func (p Paths) Certificate(name string) string { return filepath.Join(p.PKI(), name+".pem") }

// Kubeconfig is the kubeconfig of an identity. It refers to certificate files
// by path, so that clients pick up renewed ones.
func (p Paths) Kubeconfig(identity string) string {
	return filepath.Join(p.PKI(), identity+".kubeconfig")
}

// AdminKubeconfig is Kubeconfig("admin").
func (p Paths) AdminKubeconfig() string { return p.Kubeconfig("admin") }

// KubeletKubeconfig is Kubeconfig("kubelet").
func (p Paths) KubeletKubeconfig() string { return p.Kubeconfig("kubelet") }

// EncryptionKeys holds the keys that encrypt Secrets, and how far a rotation
// has come.
func (p Paths) EncryptionKeys() string { return filepath.Join(p.PKI(), "encryption-keys.json") }

// Config is the directory of the configuration files rendered at each start,
// mode 0700. It is in RunDir: nothing in it needs to survive.
func (p Paths) Config() string { return filepath.Join(p.RunDir, "control-plane") }

// EncryptionConfig is the API server's encryption configuration.
func (p Paths) EncryptionConfig() string { return filepath.Join(p.Config(), "encryption.json") }

// AuthenticationConfig is the API server's authentication configuration.
func (p Paths) AuthenticationConfig() string {
	return filepath.Join(p.Config(), "authentication.json")
}

// AdmissionConfig is the API server's admission configuration.
func (p Paths) AdmissionConfig() string { return filepath.Join(p.Config(), "admission.json") }

// AuditPolicy is the API server's audit policy.
func (p Paths) AuditPolicy() string { return filepath.Join(p.Config(), "audit-policy.yaml") }
