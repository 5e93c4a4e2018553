package ignore_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/fluxcd/pkg/sourceignore"

	"github.com/bothy-os/bothy/reconciler/build/ignore"
)

func walk(t *testing.T, files fs.FS) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAsFlux compares with the matcher that Flux makes of the same rules.
func TestAsFlux(t *testing.T) {
	files := fstest.MapFS{}
	for name, text := range map[string]string{
		".sourceignore":        "# all but deploy\n/*\n!/deploy\n*.md\nsecret.yaml\n",
		"deploy/.sourceignore": "skip/\n!README.md\n/only-here.yaml\n",
		"deploy/a.yaml":        "", "deploy/README.md": "", "deploy/other.md": "",
		"deploy/skip/b.yaml": "", "deploy/sub/skip/c.yaml": "", "deploy/only-here.yaml": "", "deploy/sub/only-here.yaml": "",
		"deploy/sub/secret.yaml": "", "deploy/logo.png": "", "deploy/sub/.sops.yaml": "", "deploy/.git/config": "",
		"deploy/again/.gitignore": "", "apps/x.yaml": "", "top.yaml": "",
	} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for _, patterns := range []string{"", "!/apps\n", "!*.png\n/deploy/sub\n", "/*\n"} {
		rules := sourceignore.ReadPatterns(strings.NewReader(string(files[".sourceignore"].Data)), nil)
		rules = append(rules, sourceignore.ReadPatterns(strings.NewReader(string(files["deploy/.sourceignore"].Data)), []string{"deploy"})...)
		rules = append(rules, sourceignore.ReadPatterns(strings.NewReader(patterns), nil)...)
		matcher := sourceignore.NewDefaultMatcher(rules, nil)
		var want []string
		for _, name := range walk(t, files) {
			if !matcher.Match(strings.Split(name, "/"), false) {
				want = append(want, name)
			}
		}
		shown := ignore.New(files, patterns)
		if got := walk(t, shown); !slices.Equal(got, want) {
			t.Errorf("with %q: %q\nFlux has %q", patterns, got, want)
		}
		for name := range files {
			_, err := fs.ReadFile(shown, name)
			if _, statErr := fs.Stat(shown, name); (err == nil) != (statErr == nil) || (err == nil) != slices.Contains(want, name) {
				t.Errorf("with %q: %s: read %v, stat %v", patterns, name, err, statErr)
			}
		}
	}
}

func TestIsAFileSystem(t *testing.T) {
	files := fstest.MapFS{"a.yaml": {Data: []byte("a")}, "b/c.yaml": {Data: []byte("c")}, "b/x.png": {Data: []byte("x")}}
	if err := fstest.TestFS(ignore.New(files, ""), "a.yaml", "b/c.yaml"); err != nil {
		t.Error(err)
	}
}
