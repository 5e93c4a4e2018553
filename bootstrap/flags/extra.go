package flags

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

// merge adds the operator's flags in a stable order. component is the field
// under spec.controlPlane.
func (l *list) merge(component string, extra map[string]string) ([]string, error) {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := l.add(name, extra[name]); err != nil {
			err.Field = fmt.Sprintf("spec.controlPlane.%s.extraArgs.%s", component, name)
			problems = append(problems, err)
		}
	}
	return l.strings(), errors.Join(problems...)
}

func (l *list) add(name, value string) *v1alpha1.FieldError {
	if strings.HasPrefix(name, "-") || strings.ContainsAny(name, "= \t\n") || name == "" {
		return &v1alpha1.FieldError{
			Problem: fmt.Sprintf("%q is not the name of a flag", name),
			Remedy:  "write the flag's name without dashes and its value after the colon",
		}
	}
	if reason, ok := l.refused[name]; ok {
		return &v1alpha1.FieldError{Problem: "the flag cannot be set: " + reason, Remedy: "remove it"}
	}
	i := slices.IndexFunc(l.flags, func(f flag) bool { return f.name == name })
	switch {
	case i < 0:
		l.flags = append(l.flags, flag{name, value})
	case l.appended[name]:
		l.flags[i].value += "," + value
	default:
		return &v1alpha1.FieldError{Problem: "the flag is set by bothy", Remedy: "remove it; where it can be chosen, cluster.yaml has a field for it"}
	}
	return nil
}
