package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	goyaml "go.yaml.in/yaml/v2"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/strvals"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// errNoValues is in the chain of errors about references to values that are not
// there.
var errNoValues = errors.New("not found")

// valuesOf merges the values that a release refers to, in their order, and then
// its own over them.
func valuesOf(ctx context.Context, c client.Reader, r *v2.HelmRelease) (map[string]any, error) {
	own := map[string]any{}
	if r.Spec.Values != nil {
		if err := yaml.Unmarshal(r.Spec.Values.Raw, &own); err != nil {
			return nil, fmt.Errorf("spec.values: %w", err)
		}
	}
	merged := map[string]any{}
	read := references{client: c, namespace: r.Namespace, found: map[string]map[string][]byte{}}
	for _, ref := range r.Spec.ValuesFrom {
		content, err := read.content(ctx, ref)
		if errors.Is(err, errNoValues) && ref.Optional {
			continue
		}
		if err == nil {
			merged, err = mergeReference(merged, own, ref, content)
		}
		if err != nil {
			return nil, fmt.Errorf("values of %s %s/%s, key %s: %w", ref.Kind, r.Namespace, ref.Name, ref.GetValuesKey(), err)
		}
	}
	return loader.MergeMaps(merged, own), nil
}

// mergeReference merges what one reference gives: values as a whole, or one
// value for a path. A value for a path goes into what the release itself says,
// as far as that is known, so that lists can be addressed.
func mergeReference(merged, own map[string]any, ref v2.ValuesReference, content []byte) (map[string]any, error) {
	if ref.TargetPath == "" {
		values, err := common.ReadValues(content)
		if err != nil {
			return nil, errors.New("it does not parse as YAML") // the parser's error would quote it
		}
		return loader.MergeMaps(merged, values), nil
	}
	merged = loader.MergeMaps(merged, own)
	if err := setValue(merged, ref, string(content)); err != nil {
		return nil, fmt.Errorf("set %s: the value is not in the form that helm --set takes", ref.TargetPath)
	}
	return merged, nil
}

// setValue sets a value at a path, in the syntax of helm --set. A value in
// quotes is a string, whatever it looks like, and a literal one is taken as it
// is.
func setValue(values map[string]any, ref v2.ValuesReference, value string) error {
	if ref.Literal {
		escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`, `[`, `\[`, `]`, `\]`, `{`, `\{`, `}`, `\}`)
		return strvals.ParseIntoString(ref.TargetPath+"="+escape.Replace(value), values)
	}
	for _, quote := range []string{`'`, `"`} {
		if len(value) > 1 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return strvals.ParseIntoString(ref.TargetPath+"="+strings.Trim(value, `'"`), values)
		}
	}
	return strvals.ParseInto(ref.TargetPath+"="+value, values)
}

// references reads each object once, so that all keys are of the same version.
type references struct {
	client    client.Reader
	namespace string
	found     map[string]map[string][]byte
}

func (r references) content(ctx context.Context, ref v2.ValuesReference) ([]byte, error) {
	id := ref.Kind + "/" + ref.Name
	data, ok := r.found[id]
	if !ok {
		var err error
		if data, err = r.read(ctx, ref); err != nil {
			return nil, err
		}
		r.found[id] = data
	}
	if data == nil {
		return nil, errNoValues
	}
	content, ok := data[ref.GetValuesKey()]
	if !ok {
		return nil, fmt.Errorf("key %w", errNoValues)
	}
	return content, nil
}

// read returns the data of an object, nil if it does not exist.
func (r references) read(ctx context.Context, ref v2.ValuesReference) (map[string][]byte, error) {
	name := types.NamespacedName{Namespace: r.namespace, Name: ref.Name}
	switch ref.Kind {
	case "Secret":
		secret := new(corev1.Secret)
		if err := r.client.Get(ctx, name, secret); err != nil {
			return nil, ignoreNotFound(err)
		}
		return nonNil(secret.Data), nil
	case "ConfigMap":
		config := new(corev1.ConfigMap)
		if err := r.client.Get(ctx, name, config); err != nil {
			return nil, ignoreNotFound(err)
		}
		data := map[string][]byte{}
		for key, value := range config.Data {
			data[key] = []byte(value)
		}
		return data, nil
	}
	return nil, fmt.Errorf("kind %q cannot hold values", ref.Kind)
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func nonNil(data map[string][]byte) map[string][]byte {
	if data == nil {
		return map[string][]byte{}
	}
	return data
}

// digestOfValues returns the digest of values. Its form is Flux's: that of the
// YAML with its keys in order, and of nothing at all for empty values.
func digestOfValues(values map[string]any) string {
	sum := sha256.New()
	if len(values) > 0 {
		ordered := yaml.JSONObjectToYAMLObject(values)
		sortKeys(ordered)
		encoder := goyaml.NewEncoder(sum)
		// Writing to a hash cannot fail, and values came from YAML.
		_ = encoder.Encode(ordered)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

func sortKeys(value any) {
	switch v := value.(type) {
	case goyaml.MapSlice:
		sort.Slice(v, func(i, j int) bool { return fmt.Sprint(v[i].Key) < fmt.Sprint(v[j].Key) })
		for _, item := range v {
			sortKeys(item.Value)
		}
	case []any:
		for _, item := range v {
			sortKeys(item)
		}
	}
}

// copyValues returns values that can be changed without changing the original.
func copyValues(values map[string]any) map[string]any {
	out := make(map[string]any, len(values))
	for key, value := range values {
		out[key] = copyValue(value)
	}
	return out
}

func copyValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return copyValues(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = copyValue(v[i])
		}
		return out
	}
	return value
}
