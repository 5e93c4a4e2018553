package crds

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml
var files embed.FS

// The marks of a definition that this package put there.
const (
	partOfLabel      = "app.kubernetes.io/part-of"
	managedByLabel   = "app.kubernetes.io/managed-by"
	partOf           = "flux"
	managedBy        = "bothy"
	digestAnnotation = "bothy.dev/digest"
)

// Definitions returns the definitions, in the order of their names. Each carries
// the digest of its file.
func Definitions() ([]*unstructured.Unstructured, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	out := make([]*unstructured.Unstructured, 0, len(entries))
	for _, entry := range entries {
		raw, err := files.ReadFile(entry.Name())
		if err != nil {
			return nil, err
		}
		u, err := decode(raw)
		if err != nil {
			return nil, fmt.Errorf("definition %s: %w", entry.Name(), err)
		}
		out = append(out, u)
	}
	return out, nil
}

func decode(raw []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(raw, &u.Object); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	u.SetLabels(with(u.GetLabels(), map[string]string{partOfLabel: partOf, managedByLabel: managedBy}))
	u.SetAnnotations(with(u.GetAnnotations(), map[string]string{digestAnnotation: hex.EncodeToString(sum[:])}))
	return u, nil
}

func with(m, more map[string]string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}
