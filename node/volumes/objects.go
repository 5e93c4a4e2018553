package volumes

import _ "embed"

//go:embed objects.yaml
var objects []byte

// SystemObjects returns the RBAC objects user User needs, as a multi-document
// manifest. The StorageClass is not among them: its fields are immutable, so
// the component itself keeps it, and replaces it when settings change.
func SystemObjects() []byte { return objects }
