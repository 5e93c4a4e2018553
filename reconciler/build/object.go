package build

import (
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

type runtimeObject = runtime.Object

// unstructuredFrom decodes JSON with whole numbers as int64, as the API
// machinery wants them. Unlike the machinery's own decoder it takes objects
// without a kind, so that the error can name the file.
func unstructuredFrom(raw []byte, u *unstructured.Unstructured) error {
	if !json.Valid(raw) {
		return errors.New("is not an object")
	}
	content := map[string]any{}
	if err := utiljson.Unmarshal(raw, &content); err != nil {
		return errors.New("is not an object")
	}
	u.Object = content
	return nil
}
