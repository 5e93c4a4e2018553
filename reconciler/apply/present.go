package apply

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// presentable is a copy of an object without what the server keeps about it.
func presentable(u *unstructured.Unstructured) *unstructured.Unstructured {
	if u == nil {
		return nil
	}
	out := u.DeepCopy()
	for _, field := range append([]string{"deletionGracePeriodSeconds"}, serverFields...) {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(out.Object, "status")
	return out
}

// What stands for values of Secrets.
const (
	masked        = "*** (unchanged)"
	maskedBefore  = "*** (before)"
	maskedAfter   = "*** (after)"
	maskedAdded   = "*** (added)"
	maskedRemoved = "*** (removed)"
)

// maskPair hides the values of a Secret, and says of each key whether it
// changes. Other objects stay as they are.
func maskPair(live, merged *unstructured.Unstructured) (maskedLive, maskedMerged *unstructured.Unstructured) {
	for _, field := range []string{"data", "stringData"} {
		before, after := secretValues(live, field), secretValues(merged, field)
		for key := range before {
			if _, ok := after[key]; !ok {
				before[key] = maskedRemoved
			}
		}
		for key, value := range after {
			old, ok := before[key]
			switch {
			case !ok:
				after[key] = maskedAdded
			case reflect.DeepEqual(old, value):
				before[key], after[key] = masked, masked
			default:
				before[key], after[key] = maskedBefore, maskedAfter
			}
		}
	}
	for _, u := range []*unstructured.Unstructured{live, merged} {
		if isSecret(u) {
			hideLastApplied(u)
		}
	}
	return live, merged
}

func isSecret(u *unstructured.Unstructured) bool {
	return u != nil && u.GetKind() == "Secret" && u.GroupVersionKind().Group == ""
}

func secretValues(u *unstructured.Unstructured, field string) map[string]any {
	if !isSecret(u) {
		return nil
	}
	values, _ := u.Object[field].(map[string]any)
	return values
}

// lastApplied is where kubectl keeps a copy of what it applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func hideLastApplied(u *unstructured.Unstructured) {
	annotations := u.GetAnnotations()
	if _, ok := annotations[lastApplied]; ok {
		annotations[lastApplied] = "***"
		u.SetAnnotations(annotations)
	}
}

// diffOf is a unified diff of two objects as YAML, without its header; empty if
// they are the same.
func diffOf(live, merged *unstructured.Unstructured) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: yamlLines(live), B: yamlLines(merged), Context: 2})
	if err != nil {
		return "" // it is written to memory
	}
	return text
}

func yamlLines(u *unstructured.Unstructured) []string {
	if u == nil {
		return nil
	}
	text, err := yaml.Marshal(u.Object)
	if err != nil {
		return nil // it came from JSON
	}
	return slices.Collect(strings.Lines(string(text)))
}

// bodyObject decodes what is sent of an object.
func bodyObject(body []byte) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &u.Object); err != nil {
		return nil // it was encoded by newObject
	}
	return u
}

// definedBy reads which kind a CustomResourceDefinition defines.
func definedBy(body []byte) (ID, bool) {
	u := bodyObject(body)
	if u == nil {
		return ID{}, false
	}
	group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
	return ID{Group: group, Kind: kind}, kind != ""
}
