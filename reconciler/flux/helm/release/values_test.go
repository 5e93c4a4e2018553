package release

import (
	"context"
	"reflect"
	"strings"
	"testing"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// reader has one ConfigMap and one Secret.
type reader struct{ client.Reader }

func (reader) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	switch key.Name {
	case "config":
		o.(*corev1.ConfigMap).Data = map[string]string{"values.yaml": "a: {b: 1, c: 2}\nlist: [x]", "number": "12", "broken": "password: [hunter2"}
		return nil
	case "secret":
		o.(*corev1.Secret).Data = map[string][]byte{"values.yaml": []byte("a: {c: 3}"), "quoted": []byte(`"12"`), "literal": []byte(`x,y={z}`)}
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, key.Name)
}

func TestValuesOf(t *testing.T) {
	config := func(key, path string) v2.ValuesReference {
		return v2.ValuesReference{Kind: "ConfigMap", Name: "config", ValuesKey: key, TargetPath: path}
	}
	for _, c := range []struct {
		name string
		refs []v2.ValuesReference
		own  string
		want map[string]any
		err  string
	}{
		{name: "none", want: map[string]any{}},
		{
			name: "in order, own last", refs: []v2.ValuesReference{config("", ""), {Kind: "Secret", Name: "secret"}}, own: `{"a":{"d":4}}`,
			want: map[string]any{"a": map[string]any{"b": 1.0, "c": 3.0, "d": 4.0}, "list": []any{"x"}},
		},
		{name: "number at a path", refs: []v2.ValuesReference{config("number", "x.y")}, want: map[string]any{"x": map[string]any{"y": int64(12)}}},
		{
			name: "string at a path", refs: []v2.ValuesReference{{Kind: "Secret", Name: "secret", ValuesKey: "quoted", TargetPath: "x"}},
			want: map[string]any{"x": "12"},
		},
		{
			name: "literal", refs: []v2.ValuesReference{{Kind: "Secret", Name: "secret", ValuesKey: "literal", TargetPath: "x", Literal: true}},
			want: map[string]any{"x": "x,y={z}"},
		},
		{
			name: "into a list of its own", refs: []v2.ValuesReference{config("number", "env[0].value")}, own: `{"env":[{"name":"n"}]}`,
			want: map[string]any{"env": []any{map[string]any{"name": "n", "value": int64(12)}}},
		},
		{name: "optional", refs: []v2.ValuesReference{{Kind: "Secret", Name: "none", Optional: true}, {Kind: "Secret", Name: "secret", ValuesKey: "none", Optional: true}}, want: map[string]any{}},
		{name: "missing", refs: []v2.ValuesReference{{Kind: "Secret", Name: "none"}}, err: "Secret default/none, key values.yaml: not found"},
		{name: "missing key", refs: []v2.ValuesReference{config("none", "")}, err: "key not found"},
		{name: "broken", refs: []v2.ValuesReference{config("broken", "")}, err: "does not parse"},
	} {
		o := made("")
		o.Spec.ValuesFrom = c.refs
		if c.own != "" {
			o.Spec.Values = &apiextensionsv1.JSON{Raw: []byte(c.own)}
		}
		got, err := valuesOf(context.Background(), reader{}, o)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %#v, %v", c.name, got, err)
		}
	}
}

func TestDigestOfValues(t *testing.T) {
	// The digests are those that Flux records.
	empty := "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := digestOfValues(nil); got != empty || digestOfValues(map[string]any{}) != empty {
		t.Errorf("nothing: %s", got)
	}
	one := map[string]any{"b": []any{map[string]any{"y": 1.0, "x": 2.0}}, "a": "z"}
	two := map[string]any{"a": "z", "b": []any{map[string]any{"x": 2.0, "y": 1.0}}}
	if digestOfValues(one) != digestOfValues(two) || digestOfValues(one) == empty {
		t.Error("the order of keys counts")
	}
}

func TestRemoteKubeconfigIsHarmless(t *testing.T) {
	const head = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
	server := "clusters: [{name: c, cluster: {server: \"https://example.org\"}}]\n"
	for name, text := range map[string]string{
		"program":     head + server + "users: [{name: u, user: {exec: {command: sh, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}}}]",
		"token file":  head + server + "users: [{name: u, user: {tokenFile: /etc/shadow}}]",
		"key file":    head + server + "users: [{name: u, user: {client-key: /etc/key, client-certificate: /etc/crt}}]",
		"certificate": head + "clusters: [{name: c, cluster: {server: \"https://example.org\", certificate-authority: /etc/ca}}]\nusers: [{name: u, user: {token: t}}]",
		"nonsense":    "{{",
	} {
		if _, err := remoteConfig([]byte(text)); err == nil {
			t.Errorf("%s is allowed", name)
		}
	}
	if _, err := remoteConfig([]byte(head + server + "users: [{name: u, user: {token: t}}]")); err != nil {
		t.Error(err)
	}
}

func TestReleaseName(t *testing.T) {
	o := made("", func(o *v2.HelmRelease) { o.Spec.ReleaseName = strings.Repeat("a", 60) })
	if got := releaseName(o); len(got) != 53 || !strings.HasPrefix(got, strings.Repeat("a", 40)+"-") {
		t.Error(got)
	}
}
