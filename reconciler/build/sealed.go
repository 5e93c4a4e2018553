package build

import (
	"encoding/json"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// Sealed is a [Decryptor] that stands for keys which are not here: what is
// encrypted stays so, and only loses the mark that it is.
type Sealed struct{}

// Decrypt implements [Decryptor].
func (Sealed) Decrypt(data []byte, format sops.Format) ([]byte, error) {
	if format != sops.YAML && format != sops.JSON {
		return data, nil
	}
	var content map[string]any
	if err := yaml.Unmarshal(data, &content); err != nil {
		return nil, err
	}
	delete(content, "sops")
	return json.Marshal(content) // which is YAML too
}
