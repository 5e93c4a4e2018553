package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// The API server records for every field who set it last. A field that we
// applied leaves our entry in the managed fields when somebody else sets it to
// another value or removes it, and our entry carries another time when somebody
// acts under our name. So drift shows in the metadata alone, for every kind, with
// or without a generation, and neither the defaults that the server fills in nor
// fields that others add are mistaken for it.

// traceOf summarises who owns the fields of an object. mark changes when a field
// that we applied is no longer as we applied it, or when the object is of
// another inventory. usurped is not zero if fields are owned by managers whose
// place we take, and changes when these do.
func traceOf(uid types.UID, labels map[string]string, entries []metav1.ManagedFieldsEntry) (mark, usurped uint64) {
	ours, theirs := sha256.New(), sha256.New()
	found := false
	writeText(ours, string(uid))
	for _, key := range slices.Sorted(keysOfOwner(labels)) {
		writeText(ours, key, labels[key])
	}
	for i := range entries {
		switch entry := &entries[i]; {
		case isOurs(entry):
			writeEntry(ours, entry)
		case isUsurper(entry):
			found = true
			writeText(theirs, entry.Manager)
			writeEntry(theirs, entry)
		}
	}
	if found {
		usurped = short(theirs) | 1
	}
	return short(ours), usurped
}

// fluxOwnerPrefix begins the labels by which Flux knows its objects.
const fluxOwnerPrefix = "kustomize.toolkit.fluxcd.io/"

// keysOfOwner are the labels that say to which inventory an object belongs.
func keysOfOwner(labels map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for key := range labels {
			if (key == InventoryLabel || strings.HasPrefix(key, fluxOwnerPrefix)) && !yield(key) {
				return
			}
		}
	}
}

func isOurs(entry *metav1.ManagedFieldsEntry) bool {
	return entry.Manager == FieldManager && entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == ""
}

// isUsurper reports whether the fields of an entry become ours: those of tools
// that applied the object before bothy did, and those that somebody adds with
// kubectl. Flux treats these managers in the same way.
func isUsurper(entry *metav1.ManagedFieldsEntry) bool {
	switch {
	case entry.Subresource != "":
		return false
	case strings.HasPrefix(entry.Manager, "kubectl"):
		return true
	case entry.Operation == metav1.ManagedFieldsOperationApply:
		return entry.Manager == "kustomize-controller" || entry.Manager == "flux"
	}
	// Updates by kustomize-controller are finalizers and the like on objects of
	// the Flux API, and not what it applied.
	return entry.Manager == "before-first-apply"
}

func writeEntry(h io.Writer, entry *metav1.ManagedFieldsEntry) {
	writeText(h, entry.APIVersion)
	if entry.Time != nil {
		writeText(h, entry.Time.UTC().Format("20060102150405"))
	}
	if entry.FieldsV1 != nil {
		writeText(h, string(canonical(entry.FieldsV1.GetRawBytes())))
	}
}

func writeText(h io.Writer, texts ...string) {
	for _, text := range texts {
		_, _ = io.WriteString(h, text) // a hash never fails
		_, _ = h.Write([]byte{0})
	}
}

func short(h hash.Hash) uint64 { return binary.BigEndian.Uint64(h.Sum(nil)) }

// canonical orders the keys of a JSON object: the server's encodings differ.
func canonical(text []byte) []byte {
	var content any
	if json.Unmarshal(text, &content) != nil {
		return text
	}
	out, err := json.Marshal(content)
	if err != nil {
		return text
	}
	return out
}

// fieldsOf decodes the fields of an entry; those of a broken one are empty.
func fieldsOf(entry *metav1.ManagedFieldsEntry) *fieldpath.Set {
	set := &fieldpath.Set{}
	if entry == nil || entry.FieldsV1 == nil {
		return set
	}
	if err := set.FromJSON(bytes.NewReader(entry.FieldsV1.GetRawBytes())); err != nil {
		return &fieldpath.Set{}
	}
	return set
}

// ourEntry finds our entry, nil if there is none.
func ourEntry(entries []metav1.ManagedFieldsEntry) *metav1.ManagedFieldsEntry {
	for i := range entries {
		if isOurs(&entries[i]) {
			return &entries[i]
		}
	}
	return nil
}
