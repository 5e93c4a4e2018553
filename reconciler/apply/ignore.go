package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/fluxcd/pkg/ssa/jsondiff"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// bodyOf is what is sent of an object. Ignored fields have the value that they
// have in the cluster, for which the object is read first; an object that does
// not exist is created as Git has it.
func (e *Engine) bodyOf(ctx context.Context, o *object) ([]byte, error) {
	if len(o.ignored) == 0 {
		return o.body, nil
	}
	live, err := e.client.get(ctx, o.res, o.id.Namespace, o.id.Name, whole)
	if apierrors.IsNotFound(err) {
		return o.body, nil
	}
	if err != nil {
		return nil, err
	}
	body := &unstructured.Unstructured{}
	if err := json.Unmarshal(o.body, &body.Object); err != nil {
		return nil, err
	}
	for _, pointer := range o.ignored {
		if err := keepLive(body, live, pointer); err != nil {
			return nil, fmt.Errorf("ignore %s: %w", pointer, err)
		}
	}
	return json.Marshal(body.Object)
}

// keepLive makes the field at pointer in body what it is in live. A field that
// another manager applies is left out.
func keepLive(body, live *unstructured.Unstructured, pointer string) error {
	if _, ok := lookUp(body.Object, pointer); !ok {
		return nil // Git does not say anything about it
	}
	now, ok := lookUp(live.Object, pointer)
	patch := jsondiff.GenerateReplacePatch(jsondiff.ReplaceOp{Path: pointer, Value: now})
	if !ok || appliedByOther(live, pointer) {
		patch = jsondiff.GenerateRemovePatch(pointer)
	}
	return jsondiff.ApplyPatchToUnstructured(body, patch)
}

// lookUp resolves a JSON pointer.
func lookUp(content any, pointer string) (any, bool) {
	for _, step := range pointerSteps(pointer) {
		switch c := content.(type) {
		case map[string]any:
			next, ok := c[step]
			if !ok {
				return nil, false
			}
			content = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(c) {
				return nil, false
			}
			content = c[i]
		default:
			return nil, false
		}
	}
	return content, true
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

func pointerSteps(pointer string) []string {
	if pointer == "" {
		return nil
	}
	steps := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, step := range steps {
		steps[i] = unescape.Replace(step)
	}
	return steps
}

// appliedByOther reports whether another manager applies the field.
func appliedByOther(live *unstructured.Unstructured, pointer string) bool {
	entries := live.GetManagedFields()
	for i := range entries {
		entry := &entries[i]
		if entry.Operation != metav1.ManagedFieldsOperationApply || entry.Subresource != "" || isOurs(entry) {
			continue
		}
		found := false
		fieldsOf(entry).Iterate(func(p fieldpath.Path) {
			found = found || under(pointerSteps(pointer), stepsOf(p, live.Object))
		})
		if found {
			return true
		}
	}
	return false
}

// keepOwned remembers which fields are ours after an apply, for objects of which
// others may take some.
func (o *object) keepOwned(entries []metav1.ManagedFieldsEntry) {
	o.owned = nil
	if entry := ourEntry(entries); len(o.ignored) > 0 && entry != nil && entry.FieldsV1 != nil {
		o.owned = bytes.Clone(entry.FieldsV1.GetRawBytes())
	}
}

// onlyIgnored reports whether others took nothing but ignored fields from us. If
// so, what remains is ours from now on.
func (o *object) onlyIgnored(s sighting) bool {
	entry := ourEntry(s.entries)
	if o.owned == nil || entry == nil {
		return false
	}
	before := &fieldpath.Set{}
	if err := before.FromJSON(bytes.NewReader(o.owned)); err != nil {
		return false
	}
	now := fieldsOf(entry)
	lost, gained := before.Difference(now), now.Difference(before)
	if lost.Empty() || !gained.Empty() {
		return false
	}
	var body map[string]any
	if err := json.Unmarshal(o.body, &body); err != nil {
		return false
	}
	allowed := true
	lost.Leaves().Iterate(func(p fieldpath.Path) {
		allowed = allowed && o.ignores(stepsOf(p, body))
	})
	if allowed {
		o.keepOwned(s.entries)
	}
	return allowed
}

func (o *object) ignores(steps []string) bool {
	for _, pointer := range o.ignored {
		if under(pointerSteps(pointer), steps) {
			return true
		}
	}
	return false
}

// under reports whether path is at or below prefix.
func under(prefix, path []string) bool {
	if len(path) < len(prefix) {
		return false
	}
	for i := range prefix {
		if prefix[i] != path[i] {
			return false
		}
	}
	return true
}

// stepsOf turns a field path into the steps of a JSON pointer in content, where
// list items are counted instead of named. An item that is not in content ends
// the steps with one that matches no pointer.
func stepsOf(p fieldpath.Path, content any) []string {
	var steps []string
	for _, element := range p {
		var step string
		step, content = stepInto(element, content)
		steps = append(steps, step)
	}
	return steps
}

func stepInto(element fieldpath.PathElement, content any) (string, any) {
	if element.FieldName != nil {
		fields, _ := content.(map[string]any)
		return *element.FieldName, fields[*element.FieldName]
	}
	items, _ := content.([]any)
	for i, item := range items {
		if isItem(element, item, i) {
			return strconv.Itoa(i), item
		}
	}
	return "-", nil
}

// isItem reports whether a path element names this item of a list.
func isItem(element fieldpath.PathElement, item any, i int) bool {
	switch {
	case element.Index != nil:
		return *element.Index == i
	case element.Value != nil:
		return value.Equals(*element.Value, value.NewValueInterface(item))
	case element.Key != nil:
		fields, _ := item.(map[string]any)
		for _, key := range *element.Key {
			if !value.Equals(key.Value, value.NewValueInterface(fields[key.Name])) {
				return false
			}
		}
		return true
	}
	return false
}
