package build

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
)

// rootfs is a directory with a few files, made anew so that its times differ.
func rootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"bin/app": "binary", "etc/app/config": "setting"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "bin/app"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("app", filepath.Join(dir, "bin/alias")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func image(t *testing.T, name string) Image {
	return Image{
		Name: name, Source: Source{RootFS: rootfs(t)}, Entrypoint: []string{"/bin/app"},
		Ports: []string{"8080/tcp"}, Labels: map[string]string{"k": "v"},
	}
}

func build(t *testing.T, dir string, images ...Image) []Result {
	t.Helper()
	r, err := Build(t.Context(), Options{LayoutDir: dir, Images: images})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := gcrlayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestSameSourcesGiveTheSameDigest(t *testing.T) {
	a := build(t, t.TempDir(), image(t, "x/a:1"))
	b := build(t, t.TempDir(), image(t, "x/a:1"))
	if a[0].Digest != b[0].Digest {
		t.Errorf("digests %s and %s", a[0].Digest, b[0].Digest)
	}
}

func TestImageIsWhatRestrictedPodSecurityWants(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, image(t, "x/a:1"))
	cfg, err := read(t, dir).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Config.User != DefaultUser || !slices.Equal(cfg.Config.Entrypoint, []string{"/bin/app"}) || cfg.Config.Labels["k"] != "v" {
		t.Errorf("config %+v", cfg.Config)
	}
	if _, ok := cfg.Config.ExposedPorts["8080/tcp"]; !ok || cfg.OS != "linux" || cfg.Architecture == "" || !cfg.Created.Time.Equal(epoch) {
		t.Errorf("config %+v", cfg)
	}
}

func TestFilesHaveFixedOwnersTimesAndModes(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, image(t, "x/a:1"))
	layers, err := read(t, dir).Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := map[string]int64{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.Mode
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(epoch) {
			t.Errorf("%s belongs to %d:%d %q and is from %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
	}
	want := map[string]int64{"bin/": 0o755, "bin/app": 0o755, "bin/alias": 0o755, "etc/": 0o755, "etc/app/": 0o755, "etc/app/config": 0o644}
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, got[name], mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("files %v", got)
	}
}

func TestUnchangedLayoutIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	if r := build(t, dir, image(t, "x/a:1"), image(t, "x/b:1")); !r[0].Changed || !r[1].Changed {
		t.Errorf("first build: %+v", r)
	}
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	var files []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files = append(files, p)
		return os.Chtimes(p, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := build(t, dir, image(t, "x/a:1"), image(t, "x/b:1")); r[0].Changed || r[1].Changed {
		t.Errorf("second build: %+v", r)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if !st.ModTime().Equal(old) {
			t.Errorf("%s was written again", f)
		}
	}
}

func TestDamagedLayoutIsRepaired(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, image(t, "x/a:1"))
	layers, err := read(t, dir).Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", digest.Hex)); err != nil {
		t.Fatal(err)
	}
	if listed, err := List(dir); err != nil || !strings.Contains(listed[0].Problem, digest.Hex) {
		t.Errorf("list of a damaged layout: %+v, %v", listed, err)
	}
	build(t, dir, image(t, "x/a:1"))
	if listed, err := List(dir); err != nil || listed[0].Problem != "" {
		t.Errorf("list after another build: %+v, %v", listed, err)
	}
}

func TestChangedImageReplacesTheOldAndItsBlobs(t *testing.T) {
	dir := t.TempDir()
	before := build(t, dir, image(t, "x/a:1"))
	changed := image(t, "x/a:1")
	if err := os.WriteFile(filepath.Join(changed.Source.RootFS, "etc/app/config"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	after := build(t, dir, changed)
	if before[0].Digest == after[0].Digest || !after[0].Changed {
		t.Errorf("before %+v, after %+v", before, after)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 3 { // manifest, config, layer
		t.Errorf("%d blobs: %v", len(blobs), blobs)
	}
}

func TestPruneRemovesWhatIsNotAskedFor(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, image(t, "x/a:1"), image(t, "x/b:1"))
	if _, err := Build(t.Context(), Options{LayoutDir: dir, Images: []Image{image(t, "x/b:1")}, Prune: true}); err != nil {
		t.Fatal(err)
	}
	listed, err := List(dir)
	if err != nil || len(listed) != 1 || listed[0].Name != "x/b:1" || listed[0].Problem != "" {
		t.Errorf("left: %+v, %v", listed, err)
	}
}

func TestGoPackageBecomesAStaticImage(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go")
	}
	src := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example.test\n\ngo 1.24\n", "app/main.go": "package main\n\nfunc main() {}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img := Image{Name: "x/a:1", Source: Source{GoPackage: "./app", Dir: src}}
	a, b := t.TempDir(), t.TempDir()
	first, second := build(t, a, img), build(t, b, img)
	if first[0].Digest != second[0].Digest {
		t.Errorf("digests %s and %s", first[0].Digest, second[0].Digest)
	}
	cfg, err := read(t, a).ConfigFile()
	if err != nil || !slices.Equal(cfg.Config.Entrypoint, []string{"/app"}) {
		t.Errorf("entrypoint %v, %v", cfg.Config.Entrypoint, err)
	}
}

func TestPauseCompilesAndEndsOnTERM(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs a C compiler")
	}
	work := t.TempDir()
	bin, err := Source{CFile: "../pause/pause.c"}.cBuild(t.Context(), work)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkStatic(bin); err != nil {
		t.Error(err)
	}
	cmd := exec.CommandContext(t.Context(), bin)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitForHandler(t, cmd.Process.Pid)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("pause ended with %v", err)
	}
}

// waitForHandler waits until a process catches SIGINT and SIGCHLD (bits 1 and
// 16 of SigCgt).
func waitForHandler(t *testing.T, pid int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), "SigCgt:\t0000000000014002") {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("no signal handlers:\n%s", status)
		case <-tick.C:
		}
	}
}

func TestBadInputIsExplained(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell to refuse")
	}
	good := image(t, "x/a:1")
	for want, change := range map[string]func(*Image){
		"full reference":      func(i *Image) { i.Name = "a" },
		"exactly one source":  func(i *Image) { i.Source.Binary = "x" },
		"needs an entrypoint": func(i *Image) { i.Entrypoint = nil },
		"linked dynamically":  func(i *Image) { i.Source = Source{Binary: sh} },
		"not an executable":   func(i *Image) { i.Source = Source{Binary: "build_test.go"} },
		"no such file":        func(i *Image) { i.Source = Source{RootFS: "/does/not/exist"} },
		"go build":            func(i *Image) { i.Source = Source{GoPackage: "./does-not-exist"} },
	} {
		bad := good
		change(&bad)
		dir := t.TempDir()
		_, err := Build(t.Context(), Options{LayoutDir: dir, Images: []Image{bad}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "index.json")); !os.IsNotExist(err) {
			t.Errorf("%s: the layout was written", want)
		}
	}
}
