package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ConflistName is the file in the runtime's configuration directory. Its
// presence is what makes the node ready for pods.
const ConflistName = "10-bothy.conflist"

// writeConflist tells the container runtime how to reach the agent. Only with the port mapping
// capability does it say which host ports a pod has.
func writeConflist(dir, socket, deleted string) error {
	conf := map[string]any{
		"cniVersion": "1.1.0",
		"name":       "bothy",
		"plugins": []any{map[string]any{
			"type":         "bothy-cni",
			"socket":       socket,
			"deleted":      deleted,
			"capabilities": map[string]bool{"portMappings": true},
		}},
	}
	data, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network configuration: %w", err)
	}
	data = append(data, '\n')
	path := filepath.Join(dir, ConflistName)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := replaceFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	return nil
}
