package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
)

// takeOver makes the fields ours that belong to tools whose place we take, if
// the answer to an apply shows any, and applies again: what is not in Git then
// goes, and what leaves Git later goes too. It costs nothing for an object that
// no such tool ever touched.
func (e *Engine) takeOver(ctx context.Context, o *object, body []byte, a answer) (answer, error) {
	if o.policy.merge {
		return a, nil
	}
	patch, err := takeOverPatch(a)
	if err != nil || patch == nil {
		return a, err
	}
	_, _, err = e.client.patch(ctx, o.res, o.id.Namespace, o.id.Name, patch, patching{kind: types.JSONPatchType, detail: metadataOnly})
	if err == nil {
		var again answer
		if again, err = e.patch(ctx, o, body); err == nil {
			again.created = a.created
			return again, nil
		}
	}
	if ctx.Err() != nil || errors.Is(unavailable(err), ErrUnavailable) {
		return answer{}, err
	}
	// The object itself is as Git says; the next apply tries again.
	e.log.Debug("take over fields", "object", o.id.String(), "error", err)
	return a, nil
}

// takeOverPatch is a JSON patch of the managed fields, nil if nothing is to be
// taken over. It conflicts if the object has changed since.
func takeOverPatch(a answer) ([]byte, error) {
	entries := a.live.GetManagedFields()
	managers := sets.New[string]()
	for i := range entries {
		if entry := &entries[i]; isUsurper(entry) {
			managers.Insert(entry.Manager)
			entry.Operation = metav1.ManagedFieldsOperationUpdate // what the library looks for
		}
	}
	if managers.Len() == 0 {
		return nil, nil
	}
	holder := &metav1.PartialObjectMetadata{}
	holder.SetManagedFields(entries)
	if err := csaupgrade.UpgradeManagedFields(holder, managers, FieldManager); err != nil {
		return nil, fmt.Errorf("take over the fields of %v: %w", sets.List(managers), err)
	}
	return json.Marshal([]map[string]any{
		{"op": "replace", "path": "/metadata/managedFields", "value": holder.GetManagedFields()},
		{"op": "replace", "path": "/metadata/resourceVersion", "value": a.live.GetResourceVersion()},
	})
}
