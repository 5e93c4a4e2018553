package build

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// decryptMark is the annotation that keeps an object encrypted when its value
// is "disabled".
const decryptMark = "kustomize.toolkit.fluxcd.io/decrypt"

// role is what a kustomization uses a file for, as far as decryption goes.
type role struct {
	manifest bool        // objects; their format is seen in the content
	format   sops.Format // of anything else
}

// decryptManifest returns a manifest decrypted, if it is encrypted as a whole
// file or some of its documents are. Decrypting files, before kustomize changes
// the objects in them, is what makes their integrity checkable.
func (b *builder) decryptManifest(name string, data []byte) ([]byte, error) {
	format := sops.FormatOf(name)
	if b.options.Decrypt == nil || (format != sops.YAML && format != sops.JSON) || !sops.Encrypted(data, format) {
		return data, nil
	}
	groups, err := sops.Documents(data, format)
	if err != nil {
		return nil, &Error{Problem: err.Error(), Remedy: "correct the YAML"}
	}
	var out []byte
	for _, doc := range groups {
		if doc.Encrypted && !b.decryptionDisabled(doc.Data) {
			plain, err := b.decrypt(doc.Data, format)
			if err != nil {
				return nil, err
			}
			doc.Data = plain
		}
		out = append(append(out, "---\n"...), doc.Data...)
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
	}
	return out, nil
}

// decryptionDisabled looks at an encrypted document, whose metadata is readable.
func (b *builder) decryptionDisabled(doc []byte) bool {
	u, err := b.decode(doc)
	return err == nil && strings.EqualFold(u.GetAnnotations()[decryptMark], "disabled")
}

func (b *builder) decrypt(data []byte, format sops.Format) ([]byte, error) {
	plain, err := b.options.Decrypt.Decrypt(data, format)
	if err != nil {
		return nil, &Error{Problem: "cannot be decrypted: " + err.Error()}
	}
	b.secrets.addContent(plain, data)
	return plain, nil
}

// decryptObject decrypts in place what is still encrypted after the build: an
// object that did not come from a file of its own, and the entries of a Secret
// that are encrypted files.
func (b *builder) decryptObject(u *unstructured.Unstructured) error {
	if strings.EqualFold(u.GetAnnotations()[decryptMark], "disabled") {
		return nil
	}
	if isEncrypted(u) {
		if b.options.Decrypt == nil {
			return b.keyless(u)
		}
		raw, err := json.Marshal(u.Object)
		if err != nil {
			return err
		}
		plain, err := b.decrypt(raw, sops.JSON)
		if err != nil {
			return err
		}
		return unstructuredFrom(plain, u)
	}
	if b.options.Decrypt == nil || u.GetKind() != "Secret" || u.GetAPIVersion() != "v1" {
		return nil
	}
	return b.decryptEntries(u)
}

// isEncrypted reports whether SOPS's metadata is in the object.
func isEncrypted(u *unstructured.Unstructured) bool {
	_, found := u.Object["sops"]
	return found
}

// keyless is what to say of an encrypted object when there are no keys. Kinds of
// others may have a field of this name, and one that no decryption was asked for
// is theirs to open.
func (b *builder) keyless(u *unstructured.Unstructured) error {
	group, version, found := strings.Cut(u.GetAPIVersion(), "/")
	if found && version != "" && strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") {
		return nil
	}
	remedy := "put its key into the directory that decryption.keysDirectory of the boot configuration names"
	if b.flux() {
		remedy = "set spec.decryption of the Kustomization to the provider sops and a Secret with its keys"
	}
	return &Error{Problem: "is encrypted with SOPS and there is no key to decrypt it with", Remedy: remedy}
}

// decryptEntries decrypts the data of a Secret, entry by entry.
func (b *builder) decryptEntries(u *unstructured.Unstructured) error {
	data, _, _ := unstructured.NestedMap(u.Object, "data")
	for key, value := range data {
		text, _ := value.(string)
		content, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue // the API server says it better
		}
		format, encrypted := sops.Detect(content)
		if !encrypted {
			continue
		}
		// JSON is also the envelope of what is not structured.
		if format == sops.JSON && sops.FormatOf(key) != sops.JSON {
			format = sops.Binary
		}
		plain, err := b.decrypt(content, format)
		if err != nil {
			return fmt.Errorf("entry %q: %w", key, err)
		}
		if err := unstructured.SetNestedField(u.Object, base64.StdEncoding.EncodeToString(plain), "data", key); err != nil {
			return err
		}
	}
	return nil
}
