package sops

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Document is one document of a file, or several that were encrypted together.
type Document struct {
	Data      []byte
	Encrypted bool
}

// Documents splits a manifest. A file that SOPS encrypted has the same
// authentication code in each of its documents and stays whole; a file that was
// put together of others falls apart.
func Documents(data []byte, format Format) ([]Document, error) {
	if format != YAML {
		return []Document{{Data: data, Encrypted: Encrypted(data, format)}}, nil
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var out []Document
	last := ""
	for {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		mac, err := macOf(raw)
		switch {
		case err != nil:
			return nil, err
		case mac != "" && mac == last:
			whole := &out[len(out)-1]
			whole.Data = append(append(whole.Data, "\n---\n"...), raw...)
		default:
			out = append(out, Document{Data: bytes.Clone(raw), Encrypted: mac != ""})
		}
		last = mac
	}
}

// macOf returns the authentication code in a document, "" if it is not
// encrypted.
func macOf(raw []byte) (string, error) {
	if !Encrypted(raw, YAML) {
		return "", nil
	}
	var content struct {
		Sops struct {
			MAC string `json:"mac"`
		} `json:"sops"`
	}
	if err := yaml.Unmarshal(raw, &content); err != nil {
		return "", errors.New("a document that is encrypted is not YAML")
	}
	return content.Sops.MAC, nil
}
