package reconciler

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// decryptionKeys reads the keys that the boot configuration names; nil if it
// names none.
func (r *Reconciler) decryptionKeys() (*sops.Keys, error) {
	dir := r.cfg.Boot.Decryption.KeysDirectory
	if dir == "" {
		return nil, nil //nolint:nilnil // no directory is no keys
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read decryption keys: %w; correct decryption.keysDirectory in the boot configuration", err)
	}
	keys := map[string][]byte{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || ext != ".agekey" && ext != ".asc" {
			continue
		}
		if keys[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("read decryption keys: %w", err)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read decryption keys: %s holds no *.agekey or *.asc file", dir)
	}
	return sops.New(keys)
}
