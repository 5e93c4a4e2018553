package policy

// These are the kinds of trust/images.yaml. Fields of type any are known but not
// supported: they are refused with what to do instead.

const (
	sigstoreVersion = "policy.sigstore.dev/v1beta1"
	sigstoreKind    = "ClusterImagePolicy"
	ownVersion      = "bothy.dev/v1alpha1"
	ownKind         = "ImageTrust"
)

type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type objectMeta struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// anyKind tells documents apart before they are read strictly.
type anyKind struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   any    `json:"metadata"`
	Spec       any    `json:"spec"`
	Status     any    `json:"status"`
}

// imageTrust is bothy's own kind.
type imageTrust struct {
	typeMeta
	Metadata objectMeta `json:"metadata"`
	Spec     struct {
		NoMatch Action         `json:"noMatch"`
		Deny    []deniedDigest `json:"deny"`
	} `json:"spec"`
}

type deniedDigest struct {
	Digest string `json:"digest"`
	Reason string `json:"reason"`
}

// clusterImagePolicy is Sigstore's kind.
type clusterImagePolicy struct {
	typeMeta
	Metadata objectMeta `json:"metadata"`
	Spec     struct {
		Images []struct {
			Glob string `json:"glob"`
		} `json:"images"`
		Authorities []authority `json:"authorities"`
		Mode        string      `json:"mode"`
		Policy      any         `json:"policy"`
		Match       any         `json:"match"`
	} `json:"spec"`
	Status any `json:"status"`
}

type authority struct {
	Name             string        `json:"name"`
	Key              *keyRef       `json:"key"`
	Keyless          *keyless      `json:"keyless"`
	Static           *static       `json:"static"`
	CTLog            *transparency `json:"ctlog"`
	RFC3161Timestamp *timestamps   `json:"rfc3161timestamp"`
	Attestations     []attestation `json:"attestations"`
	SignatureFormat  string        `json:"signatureFormat"`
	Source           any           `json:"source"`
}

type keyRef struct {
	Data          string `json:"data"`
	HashAlgorithm string `json:"hashAlgorithm"`
	SecretRef     any    `json:"secretRef"`
	KMS           any    `json:"kms"`
}

type keyless struct {
	URL               string     `json:"url"`
	Identities        []identity `json:"identities"`
	CACert            *keyRef    `json:"ca-cert"`
	TrustRootRef      string     `json:"trustRootRef"`
	InsecureIgnoreSCT bool       `json:"insecureIgnoreSCT"`
}

type identity struct {
	Issuer        string `json:"issuer"`
	Subject       string `json:"subject"`
	IssuerRegExp  string `json:"issuerRegExp"`
	SubjectRegExp string `json:"subjectRegExp"`
}

type static struct {
	Action  string `json:"action"`
	Message string `json:"message"`
}

type transparency struct {
	URL          string `json:"url"`
	TrustRootRef string `json:"trustRootRef"`
}

type timestamps struct {
	TrustRootRef string `json:"trustRootRef"`
}

type attestation struct {
	Name          string     `json:"name"`
	PredicateType string     `json:"predicateType"`
	Policy        *predicate `json:"policy"`
}

type predicate struct {
	Type              string `json:"type"`
	Data              string `json:"data"`
	Remote            any    `json:"remote"`
	ConfigMapRef      any    `json:"configMapRef"`
	FetchConfigFile   any    `json:"fetchConfigFile"`
	IncludeSpec       any    `json:"includeSpec"`
	IncludeObjectMeta any    `json:"includeObjectMeta"`
	IncludeTypeMeta   any    `json:"includeTypeMeta"`
}
