package objects

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// digestAnnotation holds a hash of the object as it was asked for, so that the
// removal of a field from the manifest is noticed.
const digestAnnotation = "bothy.dev/bootstrap-digest"

// Parse reads a multi-document manifest. Every document needs apiVersion, kind
// and metadata.name; objects in namespaces also metadata.namespace. Lists are
// not taken apart.
func Parse(manifest []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	seen := map[string]bool{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for n := 1; ; n++ {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		obj, err := parseOne(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if obj == nil {
			continue
		}
		if seen[name(obj)] {
			return nil, fmt.Errorf("document %d: %s is given twice", n, name(obj))
		}
		seen[name(obj)] = true
		out = append(out, obj)
	}
}

func parseOne(doc []byte) (*unstructured.Unstructured, error) {
	data, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, err
	}
	if string(bytes.TrimSpace(data)) == "null" {
		return nil, nil
	}
	obj := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &obj.Object); err != nil {
		return nil, errors.New("is not an object")
	}
	gv, err := schema.ParseGroupVersion(obj.GetAPIVersion())
	switch {
	case err != nil || gv.Version == "" || obj.GetKind() == "":
		return nil, errors.New("needs apiVersion and kind")
	case obj.GetName() == "":
		return nil, fmt.Errorf("%s: needs metadata.name", obj.GetKind())
	}
	return obj, nil
}

// FillCABundle gives every APIService without a CA bundle the given one, so
// that a manifest can be written before the CA exists.
func FillCABundle(objs []*unstructured.Unstructured, ca []byte) error {
	for _, obj := range objs {
		if obj.GroupVersionKind().GroupKind() != (schema.GroupKind{Group: "apiregistration.k8s.io", Kind: "APIService"}) {
			continue
		}
		if _, local, _ := unstructured.NestedMap(obj.Object, "spec", "service"); !local {
			continue
		}
		insecure, _, _ := unstructured.NestedBool(obj.Object, "spec", "insecureSkipTLSVerify")
		bundle, _, _ := unstructured.NestedString(obj.Object, "spec", "caBundle")
		if insecure || bundle != "" {
			continue
		}
		if err := unstructured.SetNestedField(obj.Object, base64.StdEncoding.EncodeToString(ca), "spec", "caBundle"); err != nil {
			return fmt.Errorf("%s: %w", name(obj), err)
		}
	}
	return nil
}

// sortForApply puts first what others need to exist.
func sortForApply(objs []*unstructured.Unstructured) []*unstructured.Unstructured {
	rank := func(o *unstructured.Unstructured) int {
		switch o.GetKind() {
		case "Namespace":
			return 0
		case "CustomResourceDefinition":
			return 1
		}
		return 2
	}
	out := slices.Clone(objs)
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return out
}

func name(o *unstructured.Unstructured) string {
	n := o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		n = ns + "/" + n
	}
	return o.GetAPIVersion() + " " + o.GetKind() + " " + n
}

func digest(o *unstructured.Unstructured) (string, error) {
	data, err := json.Marshal(o.Object) // map keys are sorted
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", name(o), err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}
