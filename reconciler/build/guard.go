package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"
)

// guard refuses a file that would make kustomize leave the commit. It runs
// before kustomize sees the content, and therefore before it can follow it.
func guard(name string, data []byte, kustomization bool) error {
	if err := guardAliases(name, string(data)); err != nil {
		return err
	}
	documents, err := decodeAll(data)
	if !kustomization {
		// What cannot be decoded is kustomize's to judge: nothing in it is
		// followed.
		for _, doc := range documents {
			if err := guardPlugins(name, name, doc); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		problem := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
		return &Error{File: name, Problem: problem, Remedy: "correct the YAML"}
	}
	if len(documents) > 1 {
		return &Error{File: name, Problem: "holds several documents", Remedy: "keep one"}
	}
	for _, doc := range documents {
		content, ok := doc.(map[string]any)
		if !ok {
			return &Error{File: name, Problem: "is not a mapping", Remedy: "start with: resources: []"}
		}
		if err := guardKustomization(name, content); err != nil {
			return err
		}
		// Patches and plugins may be written in the kustomization itself.
		for _, text := range stringsIn(content) {
			if err := guardAliases(name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// guardAliases refuses YAML whose aliases unfold without end, or to very much.
// kustomize unfolds them unchecked, and a stack that overflows ends the process.
func guardAliases(name, text string) error {
	if !strings.Contains(text, "&") || !strings.Contains(text, "*") {
		return nil
	}
	// Documents are split in two ways, because kustomize goes by lines.
	for _, part := range append(strings.Split(text, "\n---"), text) {
		decoder := kyaml.NewDecoder(strings.NewReader(part))
		for {
			var value any
			err := decoder.Decode(&value)
			if err == nil {
				continue
			}
			for _, problem := range []string{"contains itself", "excessive aliasing"} {
				if strings.Contains(err.Error(), problem) {
					return &Error{File: name, Problem: err.Error(), Remedy: "write it without aliases"}
				}
			}
			break
		}
	}
	return nil
}

// decodeAll decodes every document that is not empty, with all keys in lower
// case: kustomize's decoder does not mind the case of field names either.
func decodeAll(data []byte) ([]any, error) {
	var out []any
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		var value any
		if err := yaml.Unmarshal(raw, &value); err != nil {
			return out, err
		}
		if value != nil {
			out = append(out, lowerKeys(value))
		}
	}
}

func lowerKeys(value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = lowerKeys(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, item := range v {
			key = strings.ToLower(key)
			if earlier, twice := out[key]; twice {
				item = []any{earlier, item}
			}
			out[key] = lowerKeys(item)
		}
		return out
	}
	return value
}

func guardKustomization(name string, content map[string]any) error {
	for field, value := range content {
		switch field {
		case "helmcharts", "helmchartinflationgenerator", "helmglobals":
			return &Error{File: name, Problem: "helm charts would start the helm program", Remedy: "render the chart and commit the result"}
		case "resources", "components", "bases", "crds", "configurations":
			for _, ref := range stringsIn(value) {
				if isRemote(ref) {
					return remote(name, field, ref)
				}
			}
		case "generators", "transformers", "validators":
			for _, ref := range stringsIn(value) {
				if err := guardPluginRef(name, field, ref); err != nil {
					return err
				}
			}
		case "patches", "patchesjson6902", "replacements", "openapi":
			for _, ref := range pathsIn(value) {
				if isRemote(ref) {
					return remote(name, field, ref)
				}
			}
		case "patchesstrategicmerge":
			for _, ref := range stringsIn(value) {
				if !strings.Contains(ref, "\n") && strings.Contains(ref, "://") {
					return remote(name, field, ref)
				}
			}
		case "configmapgenerator", "secretgenerator":
			if err := guardGenerator(name, field, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// guardPluginRef judges an entry of generators, transformers or validators: a
// path, or the configuration of a plugin itself.
func guardPluginRef(name, field, ref string) error {
	if !strings.Contains(ref, "\n") && !strings.HasPrefix(strings.TrimSpace(ref), "{") {
		if isRemote(ref) {
			return remote(name, field, ref)
		}
		return nil
	}
	if strings.Contains(ref, "://") {
		return remote(name, field, oneLine(errors.New(ref)))
	}
	return nil
}

// guardGenerator looks at the files that ConfigMaps and Secrets are made from;
// literals may hold anything.
func guardGenerator(name, field string, value any) error {
	if list, ok := value.([]any); ok {
		for _, item := range list {
			if err := guardGenerator(name, field, item); err != nil {
				return err
			}
		}
		return nil
	}
	m, _ := value.(map[string]any)
	for _, key := range []string{"files", "envs", "env"} {
		for _, ref := range stringsIn(m[key]) {
			_, file, keyed := strings.Cut(ref, "=")
			if !keyed {
				file = ref
			}
			if isRemote(file) {
				return remote(name, field, ref)
			}
		}
	}
	return nil
}

// guardPlugins looks for configurations of built-in plugins, which may load
// files as a kustomization does.
func guardPlugins(name, field string, value any) error {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			if err := guardPlugins(name, field, item); err != nil {
				return err
			}
		}
	case map[string]any:
		if v["apiversion"] != "builtin" {
			return guardPlugins(name, field, v["items"])
		}
		for _, ref := range stringsIn(v) {
			if strings.Contains(ref, "://") {
				return remote(name, field, oneLine(errors.New(ref)))
			}
		}
	}
	return nil
}

func remote(name, field, ref string) error {
	return &Error{
		File:    name,
		Problem: fmt.Sprintf("%s refers to %q, which is outside the repository", field, ref),
		Remedy:  "copy it into the repository: a commit must say everything by itself",
	}
}

// isRemote is stricter than kustomize, which takes for remote what has a
// scheme, a user or the host github.com.
func isRemote(ref string) bool {
	ref = strings.ToLower(strings.TrimSpace(ref))
	return strings.ContainsAny(ref, ":@") || strings.HasPrefix(ref, "github.com") || strings.HasPrefix(ref, "www.github.com")
}

// stringsIn returns all strings in a decoded YAML value.
func stringsIn(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, item := range v {
			out = append(out, stringsIn(item)...)
		}
		return out
	case map[string]any:
		var out []string
		for _, item := range v {
			out = append(out, stringsIn(item)...)
		}
		return out
	}
	return nil
}

// pathsIn returns the values of all "path" keys in a decoded YAML value.
func pathsIn(value any) []string {
	var out []string
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			out = append(out, pathsIn(item)...)
		}
	case map[string]any:
		for key, item := range v {
			if text, ok := item.(string); ok && key == "path" {
				// A JSON path inside a patch starts with a slash and is not a file.
				if !strings.HasPrefix(text, "/") {
					out = append(out, text)
				}
				continue
			}
			out = append(out, pathsIn(item)...)
		}
	}
	return out
}
