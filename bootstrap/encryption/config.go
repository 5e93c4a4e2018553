package encryption

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Prefix is what a value in etcd that was encrypted with the named key starts
// with.
func Prefix(key string) string { return "k8s:enc:secretbox:v1:" + key + ":" }

// Config returns the API server's encryption configuration for the ring: the
// first key encrypts, all decrypt.
func (r *Ring) Config() ([]byte, error) {
	type key struct {
		Name   string `json:"name"`
		Secret string `json:"secret"`
	}
	var keys []key
	writer := r.Writer()
	for _, k := range append([]Key{writer}, r.Keys...) {
		if len(keys) > 0 && k.Name == writer.Name {
			continue
		}
		keys = append(keys, key{k.Name, base64.StdEncoding.EncodeToString(k.Secret)})
	}
	return json.Marshal(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "EncryptionConfiguration",
		"resources": []any{map[string]any{
			"resources": []string{"secrets"},
			"providers": []any{map[string]any{"secretbox": map[string]any{"keys": keys}}},
		}},
	})
}

// Hash is how the API server names a configuration that it has loaded.
func Hash(config []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(config)) }
