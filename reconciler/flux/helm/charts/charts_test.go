package charts_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/bothy-os/bothy/reconciler/flux/helm/charts"
)

func files(pairs ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return out
}

func names(f charts.Files) string {
	var out []string
	for _, file := range f {
		out = append(out, file.Name)
	}
	return strings.Join(out, " ")
}

func TestFromDirHonoursIgnoreFile(t *testing.T) {
	f, err := charts.FromDir(files("a/Chart.yaml", "name: a\nversion: 1.0.0", "a/.helmignore", "*.bak\nsecret/",
		"a/x.bak", "", "a/secret/key", "", "a/templates/x.yaml", "", "b/Chart.yaml", ""), "./a")
	if err != nil {
		t.Fatal(err)
	}
	if got := names(f); got != ".helmignore Chart.yaml templates/x.yaml" {
		t.Error(got)
	}
}

func TestFromDirRefuses(t *testing.T) {
	link := files("Chart.yaml", "name: a\nversion: 1.0.0")
	link["templates/etc"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("/etc")}
	if _, err := charts.FromDir(link, "."); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a link: %v", err)
	}
	if _, err := charts.FromDir(files("x", ""), "."); !errors.Is(err, charts.ErrNoChart) {
		t.Errorf("no chart: %v", err)
	}
}

func TestPackIsReproducible(t *testing.T) {
	one, err := charts.FromDir(files("Chart.yaml", "name: a\nversion: 1.0.0", "values.yaml", "x: 1", "templates/a.yaml", "b"), ".")
	if err != nil {
		t.Fatal(err)
	}
	two := append(charts.Files{}, one[2], one[0], one[1])
	first, err := one.Pack()
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.Pack()
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the archives differ: %v", err)
	}
	again, err := charts.FromArtifact(files("a.tgz", string(first)))
	if err != nil || names(again) != "Chart.yaml templates/a.yaml values.yaml" {
		t.Errorf("read back %s: %v", names(again), err)
	}
}

func TestFromArtifactFindsTheChart(t *testing.T) {
	for name, fsys := range map[string]fs.FS{
		"at the top":     files("Chart.yaml", "name: a\nversion: 1.0.0", "templates/x", ""),
		"in a directory": files("a/Chart.yaml", "name: a\nversion: 1.0.0"),
	} {
		f, err := charts.FromArtifact(fsys)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, err := f.Metadata(); err != nil || m.Name != "a" {
			t.Errorf("%s: %v %v", name, m, err)
		}
	}
}

func TestWithValues(t *testing.T) {
	f, err := charts.FromDir(files("Chart.yaml", "name: a\nversion: 1.0.0", "values.yaml", "a: 1\nb: {c: 1}", "prod.yaml", "b: {d: 2}"), ".")
	if err != nil {
		t.Fatal(err)
	}
	merged, used, err := f.WithValues(charts.ValuesFiles{Names: []string{"values.yaml", "none.yaml", "./prod.yaml"}, IgnoreMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := merged.Chart()
	if err != nil {
		t.Fatal(err)
	}
	b := c.Values["b"].(map[string]any)
	if b["c"] != 1.0 || b["d"] != 2.0 || len(used) != 2 {
		t.Errorf("values %v of %v", c.Values, used)
	}
	if _, _, err := f.WithValues(charts.ValuesFiles{Names: []string{"none.yaml"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := f.WithValues(charts.ValuesFiles{Names: []string{"../../etc/passwd"}, From: files("x", "")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path outside: %v", err)
	}
}

func TestComplete(t *testing.T) {
	tree := files(
		"app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n- {name: lib, version: 0.x, repository: \"file://../lib\"}\n- {name: far, version: 1.x, repository: \"https://example.org\"}\n- {name: own, version: 1.x, repository: \"https://example.org\"}",
		"app/charts/own/Chart.yaml", "name: own\nversion: 1.0.0",
		"app/Chart.lock", "dependencies: [{name: far, version: 1.2.3}]",
		"lib/Chart.yaml", "apiVersion: v2\nname: lib\nversion: 0.1.0\ndependencies: [{name: deep, repository: \"file://deep\"}]",
		"lib/deep/Chart.yaml", "name: deep\nversion: 2.0.0",
	)
	f, err := charts.FromDir(tree, "app")
	if err != nil {
		t.Fatal(err)
	}
	asked := ""
	full, err := f.Complete(context.Background(), tree, "app", func(_ context.Context, d *chart.Dependency) (charts.Files, error) {
		asked += d.Name + "@" + d.Version
		return charts.FromDir(files("Chart.yaml", "name: far\nversion: 1.2.3"), ".")
	})
	if err != nil {
		t.Fatal(err)
	}
	if asked != "far@1.2.3" {
		t.Errorf("fetched %s", asked)
	}
	for _, want := range []string{"charts/lib/Chart.yaml", "charts/lib/charts/deep/Chart.yaml", "charts/far/Chart.yaml"} {
		if !strings.Contains(names(full), want) {
			t.Errorf("%s is missing in %s", want, names(full))
		}
	}
	for name, text := range map[string]string{
		"outside":       "name: app\nversion: 1.0.0\napiVersion: v2\ndependencies: [{name: x, repository: \"file://../../..\"}]",
		"not satisfied": "name: app\nversion: 1.0.0\napiVersion: v2\ndependencies: [{name: lib, version: 9.x, repository: \"file://../lib\"}]",
		"nowhere":       "name: app\nversion: 1.0.0\napiVersion: v2\ndependencies: [{name: lib, version: 9.x}]",
	} {
		tree["app/Chart.yaml"].Data = []byte(text)
		f, err := charts.FromDir(tree, "app")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Complete(context.Background(), tree, "app", nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
