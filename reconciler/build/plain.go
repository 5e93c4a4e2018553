package build

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// file adds the objects of a plain manifest.
func (b *builder) file(name string) {
	data, err := b.readFile(name)
	if err != nil {
		b.fail(&Error{File: name, Problem: err.Error()})
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

func (b *builder) document(name string, doc []byte) {
	content := map[string]any{}
	if err := yaml.UnmarshalStrict(doc, &content); err != nil {
		problem := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
		b.fail(&Error{File: name, Problem: problem, Remedy: "correct the YAML"})
		return
	}
	if len(content) == 0 { // only comments
		return
	}
	u := &unstructured.Unstructured{}
	raw, err := yaml.YAMLToJSON(doc)
	if err == nil {
		err = unstructuredFrom(raw, u)
	}
	if err != nil {
		b.fail(&Error{File: name, Problem: err.Error(), Remedy: "correct the object, or move the file out of this directory"})
		return
	}
	if !u.IsList() {
		b.add(name, u)
		return
	}
	err = u.EachListItem(func(item runtimeObject) error {
		b.add(name, item.(*unstructured.Unstructured))
		return nil
	})
	if err != nil {
		b.fail(&Error{File: name, Problem: "is a list that cannot be read: " + err.Error()})
	}
}
