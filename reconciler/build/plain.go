package build

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"
)

// file adds the objects of a plain manifest.
func (b *builder) file(name string) {
	data, err := b.readFile(name)
	if err != nil {
		b.fail(&Error{File: name, Problem: reason(err)})
		return
	}
	if data, err = b.decryptManifest(name, data); err != nil {
		b.fail(withFile(err, name, ""))
		return
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.fail(&Error{File: name, Problem: err.Error(), Remedy: "correct the YAML"})
			return
		}
		b.document(name, doc)
	}
}

// document adds the objects of one YAML document.
func (b *builder) document(name string, doc []byte) {
	u, err := b.decode(doc)
	if err != nil {
		b.fail(&Error{File: name, Problem: b.secrets.redact(err.Error()), Remedy: "correct it, or move the file out of this directory"})
		return
	}
	if len(u.Object) == 0 { // only comments
		return
	}
	if !u.IsList() {
		b.take(name, u)
		return
	}
	err = u.EachListItem(func(item runtimeObject) error {
		b.take(name, item.(*unstructured.Unstructured))
		return nil
	})
	if err != nil {
		b.fail(&Error{File: name, Problem: "is a list that cannot be read: " + err.Error()})
	}
}

// decode reads one document, empty if there are only comments. A key that is
// there twice is an error.
//
// Flux has everything go through kustomize, which follows YAML 1.2 where kubectl
// follows 1.1: an unquoted on is a word for the one and true for the other.
func (b *builder) decode(doc []byte) (*unstructured.Unstructured, error) {
	var raw []byte
	var err error
	if b.flux() {
		content := map[string]any{}
		if err = kyaml.Unmarshal(doc, &content); err == nil {
			raw, err = json.Marshal(content)
		}
	} else {
		raw, err = yaml.YAMLToJSONStrict(doc)
	}
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	u := &unstructured.Unstructured{}
	return u, unstructuredFrom(raw, u)
}
