package v1alpha1

import "time"

// GroupVersion is the apiVersion of every kind in this package.
const GroupVersion = "bothy.dev/v1alpha1"

// TypeMeta says what a document is.
type TypeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// ObjectMeta is the part of Kubernetes' metadata that a file in Git needs.
type ObjectMeta struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Duration is a time span written as Go writes it: "90s", "24h".
type Duration struct{ time.Duration }

// Cluster describes one site: clusters/<site>/cluster.yaml. Every field has a
// default; a site without the file gets a single-node cluster.
type Cluster struct {
	TypeMeta `json:",inline"`
	Metadata ObjectMeta  `json:"metadata"`
	Spec     ClusterSpec `json:"spec"`
}

// ClusterSpec holds the settings of the control plane, the network and the
// node services. Changing one restarts only the process that uses it.
type ClusterSpec struct {
	Network      NetworkSpec      `json:"network,omitempty"`
	ControlPlane ControlPlaneSpec `json:"controlPlane,omitempty"`
	Security     SecuritySpec     `json:"security,omitempty"`
	Node         NodeSpec         `json:"node,omitempty"`
	Storage      StorageSpec      `json:"storage,omitempty"`
	GitOps       GitOpsSpec       `json:"gitOps,omitempty"`
	Telemetry    TelemetrySpec    `json:"telemetry,omitempty"`
	// System is what the operating system of every machine is set to.
	System SystemSpec `json:"system,omitempty"`
	OS     OSSpec     `json:"os,omitempty"`
}

// The values of NetworkSpec.Encapsulation.
const (
	EncapsulationCrossSubnet = "CrossSubnet"
	EncapsulationAlways      = "Always"
)

// NetworkSpec is the cluster's network. Its ranges and DNS are fixed at first boot: Kubernetes
// cannot renumber a cluster.
type NetworkSpec struct {
	// PodCIDRs are the ranges pods get addresses from, at most one per family. The first
	// family is the one that a Service has unless it asks for another. A node
	// takes a /24 or a /64 of them. Default 10.244.0.0/16 and fd62:6f74:6879:f400::/56.
	PodCIDRs []string `json:"podCIDRs,omitempty"`
	// ServiceCIDRs are the ranges of ClusterIPs, of the same families in the same order.
	// Default 10.96.0.0/16 and fd62:6f74:6879:6000::/112, as far as there are pod ranges.
	ServiceCIDRs []string `json:"serviceCIDRs,omitempty"`
	// NodePortRange is "first-last". Default 30000-32767.
	NodePortRange string `json:"nodePortRange,omitempty"`
	// NonMasqueradeCIDRs are ranges outside the cluster that see pods' own addresses: networks
	// with a route to the pod ranges. All others see the node's.
	NonMasqueradeCIDRs []string `json:"nonMasqueradeCIDRs,omitempty"`
	// Encapsulation is CrossSubnet or Always. With CrossSubnet, packets between pods of nodes on one link go as they are,
	// and are wrapped (vxlan, UDP port 4789) where a router is between the nodes. Always is for links that carry
	// only the addresses of the machines themselves, as those of many clouds do. Default CrossSubnet.
	Encapsulation string `json:"encapsulation,omitempty"`
	// SpliceNamespaces are namespaces whose pods' TCP connections with each other bypass the TCP stack where both
	// ends are on one node: half the CPU time, several times the throughput. Experimental:
	// docs/network.md says what programs must not do then. Default none.
	SpliceNamespaces []string `json:"spliceNamespaces,omitempty"`
	// LoadBalancer has the addresses of Services of type LoadBalancer.
	LoadBalancer LoadBalancerSpec `json:"loadBalancer,omitempty"`
	// DNS is the cluster's name service.
	DNS DNSSpec `json:"dns,omitempty"`
}

// DNSSpec configures cluster DNS.
type DNSSpec struct {
	// Domain is the cluster domain. Default cluster.local.
	Domain string `json:"domain,omitempty"`
	// Address is the ClusterIP of DNS. Default: the tenth address of the first
	// service range. In the other family it is always the tenth address.
	Address string `json:"address,omitempty"`
	// Upstreams answer names outside the cluster, as "ip" or "ip:port".
	// Default: the machine's own resolvers.
	Upstreams []string `json:"upstreams,omitempty"`
}

// ControlPlaneSpec tunes the upstream components.
type ControlPlaneSpec struct {
	// Port is the API server's TCP port. Default 6443.
	Port int `json:"port,omitempty"`
	// JoinPort is the TCP port on which workers get their certificates. It is
	// listened on as long as the site has workers. Default 6444.
	JoinPort int `json:"joinPort,omitempty"`
	// ExtraSANs are further names and addresses in the API server's certificate.
	ExtraSANs []string `json:"extraSANs,omitempty"`
	// EventTTL is how long Kubernetes events are kept. Default 1h.
	EventTTL Duration `json:"eventTTL,omitempty"`
	// APIServer, ControllerManager and Scheduler hold upstream flags by name,
	// without dashes, for what has no field here. Flags that bothy sets itself
	// are refused.
	APIServer         ComponentSpec `json:"apiServer,omitempty"`
	ControllerManager ComponentSpec `json:"controllerManager,omitempty"`
	Scheduler         ComponentSpec `json:"scheduler,omitempty"`
	// Etcd is the embedded store.
	Etcd EtcdSpec `json:"etcd,omitempty"`
}

// ComponentSpec passes flags to an upstream component.
type ComponentSpec struct {
	ExtraArgs map[string]string `json:"extraArgs,omitempty"`
}

// EtcdSpec tunes the embedded etcd.
type EtcdSpec struct {
	// QuotaMiB is the largest size of the database file. Default 2048.
	QuotaMiB int `json:"quotaMiB,omitempty"`
	// CompactionInterval is how often old revisions are dropped. Default 5m.
	CompactionInterval Duration `json:"compactionInterval,omitempty"`
}

// SecuritySpec holds the defaults a reviewer would ask for; see docs/security.md.
type SecuritySpec struct {
	PodSecurity PodSecuritySpec `json:"podSecurity,omitempty"`
	Encryption  EncryptionSpec  `json:"encryption,omitempty"`
	Audit       AuditSpec       `json:"audit,omitempty"`
}

// PodSecuritySpec is the cluster-wide default of Pod Security admission. A
// namespace label overrides it.
type PodSecuritySpec struct {
	// Enforce, Warn and Audit are privileged, baseline or restricted.
	// Defaults: baseline, restricted, restricted.
	Enforce string `json:"enforce,omitempty"`
	Warn    string `json:"warn,omitempty"`
	Audit   string `json:"audit,omitempty"`
	// ExemptNamespaces are not checked, beside kube-system and bothy-system.
	ExemptNamespaces []string `json:"exemptNamespaces,omitempty"`
}

// EncryptionSpec governs encryption of Secrets in etcd.
type EncryptionSpec struct {
	// RotateEvery is the age at which the key is replaced and all Secrets are
	// rewritten. Default 2160h (90 days).
	RotateEvery Duration `json:"rotateEvery,omitempty"`
}

// AuditSpec governs the API server's audit log.
type AuditSpec struct {
	// Disabled turns the audit log off.
	Disabled bool `json:"disabled,omitempty"`
	// MaxSizeMiB is the size at which the file is rotated. Default 20.
	MaxSizeMiB int `json:"maxSizeMiB,omitempty"`
	// MaxBackups is the number of rotated files kept. Default 5.
	MaxBackups int `json:"maxBackups,omitempty"`
}

// NodeSpec holds kubelet settings that apply to every node.
type NodeSpec struct {
	// MaxPods per node. Default 110.
	MaxPods int `json:"maxPods,omitempty"`
	// Labels and Taints are set at registration.
	Labels map[string]string `json:"labels,omitempty"`
}

// StorageSpec configures the built-in local volume provisioner.
type StorageSpec struct {
	Local LocalStorageSpec `json:"local,omitempty"`
}

// LocalStorageSpec is the StorageClass for volumes on the node's own disk.
type LocalStorageSpec struct {
	// Disabled removes the StorageClass; existing volumes stay.
	Disabled bool `json:"disabled,omitempty"`
	// ClassName is the StorageClass. Default local.
	ClassName string `json:"className,omitempty"`
	// NotDefault keeps it from being the default class.
	NotDefault bool `json:"notDefault,omitempty"`
	// ReclaimPolicy is Delete or Retain. Default Delete.
	ReclaimPolicy string `json:"reclaimPolicy,omitempty"`
}

// Machine describes one node: clusters/<site>/machines/<name>.yaml.
type Machine struct {
	TypeMeta `json:",inline"`
	Metadata ObjectMeta  `json:"metadata"`
	Spec     MachineSpec `json:"spec"`
}

// MachineSpec holds what differs between nodes.
type MachineSpec struct {
	// Role is control-plane or worker. Default control-plane.
	Role string `json:"role,omitempty"`
	// Identity is the fingerprint of the machine's identity key, as `bothy machine identity`
	// prints it. It is what makes a machine part of the cluster: workers need one, and so
	// does a control plane with workers.
	Identity string `json:"identity,omitempty"`
	// Addresses are the IP addresses by which other nodes reach the machine. Workers
	// look for the control plane there. A worker's certificates are valid for them; without
	// any, for the address that it joins from.
	Addresses []string `json:"addresses,omitempty"`
	// Labels and Taints are set on the Node.
	Labels map[string]string `json:"labels,omitempty"`
	Taints []Taint           `json:"taints,omitempty"`
	// System is what the operating system is set to.
	System MachineSystemSpec `json:"system,omitempty"`
}

// Taint is a Node taint.
type Taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

// TrustRoot says who may sign commits and what they may change:
// trust/root.yaml.
type TrustRoot struct {
	TypeMeta `json:",inline"`
	// Version never decreases from one commit to the next.
	Version int64 `json:"version"`
	// Signers are the people and machines whose signatures count.
	Signers []Signer `json:"signers"`
	// Rules limit signers to paths. Without rules every signer may change
	// everything.
	Rules []Rule `json:"rules,omitempty"`
}

// Signer is one key, or one certified identity, that may sign.
type Signer struct {
	// Name is what status and rules call the signer.
	Name string `json:"name"`
	// Kind is ssh, openpgp or x509.
	Kind string `json:"kind"`
	// PublicKey is an OpenSSH public key line, or an armored OpenPGP key. Not
	// for x509.
	PublicKey string `json:"publicKey,omitempty"`

	// CertificateAuthorities are PEM certificates of the authorities that certify
	// an x509 signer; self-signed ones are the anchors, others complete chains.
	CertificateAuthorities string `json:"certificateAuthorities,omitempty"`
	// TrustedRoot is a Sigstore trusted root (trusted_root.json): certificate
	// authorities, transparency logs and time-stamp authorities in one document.
	// It takes the place of CertificateAuthorities.
	TrustedRoot string `json:"trustedRoot,omitempty"`
	// Subject is the e-mail address or URI in the certificate. "*" stands for any
	// characters but a slash, "**" for any characters. Without it every
	// certificate of the authorities counts as this signer.
	Subject string `json:"subject,omitempty"`
	// Issuer is who vouched for the subject to a Sigstore authority, such as
	// https://accounts.google.com.
	Issuer string `json:"issuer,omitempty"`
	// TransparencyLogKeys are PEM public keys of Rekor logs, and
	// TimestampAuthorities PEM certificates of RFC 3161 services. With one of them
	// (or a TrustedRoot) the time that they attest decides whether a certificate
	// was valid; without, it must be valid at the commit's time and still.
	TransparencyLogKeys  string `json:"transparencyLogKeys,omitempty"`
	TimestampAuthorities string `json:"timestampAuthorities,omitempty"`

	// NotBefore and NotAfter bound the validity of signatures, RFC 3339.
	NotBefore *time.Time `json:"notBefore,omitempty"`
	NotAfter  *time.Time `json:"notAfter,omitempty"`
}

// Rule allows signers to change paths.
type Rule struct {
	// Signers are names from TrustRoot.Signers.
	Signers []string `json:"signers"`
	// Paths are patterns relative to the repository root; ** crosses
	// directories.
	Paths []string `json:"paths"`
	// Threshold is how many different signers a change needs: 1, or 2 for a
	// merge commit signed by one of commits signed by another. Default 1.
	Threshold int `json:"threshold,omitempty"`
}

// BootConfig is the only configuration outside the repository: baked into the
// image, on a seed partition, or written by `bothy up`.
type BootConfig struct {
	TypeMeta `json:",inline"`
	// MachineName is this node's name. Default: the host name.
	MachineName string `json:"machineName,omitempty"`
	// RequireEnrolment keeps the node from starting anything until the repository
	// has a Machine with its name and identity. It is for machines that are to join
	// a cluster: without it one that the repository does not know starts its own.
	RequireEnrolment bool `json:"requireEnrolment,omitempty"`

	Repository RepositorySpec `json:"repository"`
	// Trust is where the trust chain starts.
	Trust BootTrust `json:"trust"`
	// Network is how this node reaches others.
	Network BootNetwork `json:"network,omitempty"`
	// Endpoint is where the node can be pushed to; nil for not at all.
	Endpoint *BootEndpoint `json:"endpoint,omitempty"`
	// Decryption opens what the repository holds encrypted.
	Decryption BootDecryption `json:"decryption,omitempty"`
	// Install has an installation medium write itself to a disk of the machine it was
	// started on, and restart that. Others do not look at it.
	Install *BootInstall `json:"install,omitempty"`
	// Reset, on a seed volume, has a machine forget everything and begin anew with this
	// configuration, once: a machine that has begun with the same word is left alone. Any
	// word will do, such as a date.
	Reset string `json:"reset,omitempty"`
}

// BootInstall says where a medium is to write itself to.
type BootInstall struct {
	// Disk has to fit exactly one disk. Without any field it is the only disk of the
	// machine that is not removable.
	Disk DiskSelector `json:"disk,omitempty"`
	// Overwrite writes to a disk that is not blank. What is on it is lost.
	Overwrite bool `json:"overwrite,omitempty"`
	// PowerOff switches the machine off when it is done, and does not restart it.
	PowerOff bool `json:"powerOff,omitempty"`
}

// Which of several disks a DiskSelector picks.
const (
	PickSmallest = "smallest"
	PickLargest  = "largest"
)

// DiskSelector describes a disk. All that is said has to hold.
type DiskSelector struct {
	// Serial and Model are what the disk reports; Path is its device, such as /dev/nvme0n1.
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	Path   string `json:"path,omitempty"`
	// MinGiB and MaxGiB bound its size, in GiB; 0 does not.
	MinGiB int `json:"minGiB,omitempty"`
	MaxGiB int `json:"maxGiB,omitempty"`
	// Pick is smallest or largest, for when several fit.
	Pick string `json:"pick,omitempty"`
}

// BootTrust is exactly one of a trust root or an explicit "none".
type BootTrust struct {
	// Root is the initial trust root, in full.
	Root *TrustRoot `json:"root,omitempty"`
	// None accepts unsigned commits. `bothy status` shows it in red.
	None bool `json:"none,omitempty"`
}

// BootNetwork is how a machine reaches others before it has read anything from Git. On
// a machine of its own what is left out is asked for by DHCP; a node made by `bothy up`
// has its network already.
type BootNetwork struct {
	// Address is the node's IP address. With the length of the network's prefix, as in
	// 192.0.2.10/24, the interface gets it, and DHCP is not used.
	Address string `json:"address,omitempty"`
	// Interface carries it, by name or by hardware address. Default: the first with a
	// link that gets an address.
	Interface string `json:"interface,omitempty"`
	// VLAN is the tag (IEEE 802.1Q) of the network on the interface; 0 for none.
	VLAN int `json:"vlan,omitempty"`
	// Gateway is the way to other networks.
	Gateway string `json:"gateway,omitempty"`
	// DNS are servers that know other names, NTP such that know the time: addresses, or
	// names for NTP. Those given here come before what DHCP says.
	DNS []string `json:"dns,omitempty"`
	NTP []string `json:"ntp,omitempty"`
}
