package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/fluxcd/pkg/envsubst"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// substituteMark is the label or annotation that keeps an object out of
// substitution when its value is "disabled".
const substituteMark = "kustomize.toolkit.fluxcd.io/substitute"

var variableName = regexp.MustCompile(`^[_[:alpha:]][_[:alpha:][:digit:]]*$`)

// substituted returns the object with variables replaced in its YAML. As in Flux
// that YAML is written anew from the object: a value may change the type of a
// field, and quotes in the file do not prevent that.
func (b *builder) substituted(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if b.options.Substitute == nil || u.GetLabels()[substituteMark] == "disabled" || u.GetAnnotations()[substituteMark] == "disabled" {
		return u, nil
	}
	raw, err := json.Marshal(u.Object)
	if err != nil || !bytes.Contains(raw, []byte("$")) {
		return u, err
	}
	text, err := yaml.JSONToYAML(raw)
	if err != nil {
		return u, err
	}
	output, err := envsubst.Eval(string(text), b.variable)
	if err != nil {
		return u, &Error{Problem: "variables cannot be substituted: " + b.redactVariables(err.Error()), Remedy: "write $${name} where no variable is meant, or annotate the object with " + substituteMark + ": disabled"}
	}
	if raw, err = yaml.YAMLToJSON([]byte(output)); err == nil {
		u = &unstructured.Unstructured{}
		err = unstructuredFrom(raw, u)
	}
	if err != nil {
		// The text of the error may be the value of a secret variable.
		return u, &Error{Problem: "is not a valid object after its variables were substituted", Remedy: "correct the value of the variable; if it is to be text that looks like something else, let the value have quotes"}
	}
	return u, nil
}

// variable looks up a variable as envsubst asks for it.
func (b *builder) variable(name string) (string, bool) {
	value, ok := b.options.Substitute[name]
	return strings.ReplaceAll(value, "\n", ""), ok || !b.options.StrictSubstitute
}

// checkVariables refuses names that no shell would take.
func checkVariables(variables map[string]string) error {
	for name := range variables {
		if !variableName.MatchString(name) {
			return &Error{Problem: fmt.Sprintf("the variable %q of post-build substitution has an invalid name", name), Remedy: "use letters, digits and underscores, and start with no digit"}
		}
	}
	return nil
}

// redactVariables hides values, which may come from a Secret.
func (b *builder) redactVariables(text string) string {
	var values secrets
	for _, value := range b.options.Substitute {
		values.add(value)
	}
	return values.redact(text)
}
