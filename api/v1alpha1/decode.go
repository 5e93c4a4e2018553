package v1alpha1

import (
	"errors"

	"github.com/bothy-os/bothy/internal/strictyaml"
)

// DecodeCluster reads cluster.yaml. Problems are *strictyaml.Error values,
// joined, each with its line. The result has its defaults filled in.
func DecodeCluster(file string, data []byte) (*Cluster, error) {
	c := &Cluster{}
	doc, err := decode(file, data, "Cluster", &c.TypeMeta, c)
	if err != nil {
		return nil, err
	}
	c.Default()
	return c, report(doc, c.Validate())
}

// DecodeMachine reads machines/<name>.yaml.
func DecodeMachine(file string, data []byte) (*Machine, error) {
	m := &Machine{}
	doc, err := decode(file, data, "Machine", &m.TypeMeta, m)
	if err != nil {
		return nil, err
	}
	m.Default()
	return m, report(doc, m.Validate())
}

// DecodeTrustRoot reads trust/root.yaml. It checks the form; whether the keys
// can be parsed is for the signature code to say.
func DecodeTrustRoot(file string, data []byte) (*TrustRoot, error) {
	r := &TrustRoot{}
	doc, err := decode(file, data, "TrustRoot", &r.TypeMeta, r)
	if err != nil {
		return nil, err
	}
	r.Default()
	return r, report(doc, r.Validate())
}

// DecodeBootConfig reads the boot configuration.
func DecodeBootConfig(file string, data []byte) (*BootConfig, error) {
	b := &BootConfig{}
	doc, err := decode(file, data, "BootConfig", &b.TypeMeta, b)
	if err != nil {
		return nil, err
	}
	b.Default()
	return b, report(doc, b.Validate())
}

func decode(file string, data []byte, kind string, meta *TypeMeta, into any) (*strictyaml.Document, error) {
	doc, err := strictyaml.Decode(file, data, into)
	if err != nil {
		return nil, err
	}
	if meta.APIVersion != GroupVersion {
		return nil, doc.Errorf("apiVersion", "write apiVersion: "+GroupVersion, "must be %q, not %q", GroupVersion, meta.APIVersion)
	}
	if meta.Kind != kind {
		return nil, doc.Errorf("kind", "write kind: "+kind, "must be %q, not %q", kind, meta.Kind)
	}
	return doc, nil
}

// FieldError is a value that is well-formed but not acceptable.
type FieldError struct {
	// Field is the path from the document's root, e.g. spec.network.podCIDRs[0].
	Field string
	// Problem and Remedy say what is wrong and what to write instead.
	Problem, Remedy string
}

func (e *FieldError) Error() string {
	if e.Remedy == "" {
		return e.Field + ": " + e.Problem
	}
	return e.Field + ": " + e.Problem + "; " + e.Remedy
}

// report gives validation problems the lines they stand on.
func report(doc *strictyaml.Document, problems []*FieldError) error {
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = doc.Errorf(p.Field, p.Remedy, "%s", p.Problem)
	}
	return errors.Join(errs...)
}
