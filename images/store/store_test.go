package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/layout"
)

const (
	appOne, appTwo = "example.org/app:1", "example.org/app:2"
	commitOne      = "1111111111111111111111111111111111111111"
	commitTwo      = "2222222222222222222222222222222222222222"
	commitThree    = "3333333333333333333333333333333333333333"
)

// pack makes a bundle of images that share a layer.
func pack(t *testing.T, commit string, base *bundle.Base, names ...string) string {
	t.Helper()
	l := imagetest.New(t)
	for _, name := range names {
		image := l.Image(imagetest.Noise(1, 300_000), imagetest.Noise(uint64(name[len(name)-1]), 100_000))
		l.Name(name, image)
		l.Name(name[:strings.LastIndexByte(name, ':')]+":sha256-"+image.Digest.Encoded()+".sig", l.Image([]byte("signature of "+name)))
	}
	l.Save()
	from, err := layout.Open(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	o := bundle.Options{To: filepath.Join(t.TempDir(), "site.tar"), Images: names, Sources: []bundle.Source{bundle.Layout(from)}, Base: base}
	if commit != "" {
		o.Git = &bundle.Git{Commit: commit, Write: func(_ context.Context, w *bytes.Buffer) error {
			_, err := w.WriteString("history of " + commit)
			return err
		}}
	}
	if _, err := bundle.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return o.To
}

func take(t *testing.T, s *Store, path string) Imported {
	t.Helper()
	all, err := s.Import(t.Context(), path, nil, nil)
	if err != nil || len(all) != 1 {
		t.Fatalf("import: %+v, %v", all, err)
	}
	return all[0]
}

func names(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range list {
		if k.Problem != "" {
			t.Errorf("%s: %s", k.Name, k.Problem)
		}
		out = append(out, k.Name)
	}
	return strings.Join(out, " ")
}

func none(string) bool { return false }

func TestImportFromEverywhereAndAgain(t *testing.T) {
	file := pack(t, commitOne, nil, appOne, appTwo)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"file", "volume", "stream", "directory"} {
		t.Run(way, func(t *testing.T) {
			s := New(filepath.Join(t.TempDir(), "images"), "")
			path := file
			switch way {
			case "volume":
				path = t.TempDir()
				if err := os.WriteFile(filepath.Join(path, "site.tar"), content, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(path, "holiday.tar"), []byte("no archive"), 0o644); err != nil {
					t.Fatal(err)
				}
			case "stream":
				path = "-"
			case "directory":
				other := New(filepath.Join(t.TempDir(), "images"), "")
				take(t, other, file)
				path = other.Dir()
			}
			for _, first := range []bool{true, false} {
				all, err := s.Import(t.Context(), path, bytes.NewReader(content), nil)
				if err != nil || len(all) != 1 || len(all[0].Images) != 2 {
					t.Fatalf("%+v, %v", all, err)
				}
				if first != (all[0].Read > 400_000) {
					t.Errorf("read %d, had %d bytes", all[0].Read, all[0].Had)
				}
			}
			if got := names(t, s); got != appOne+" "+appTwo {
				t.Errorf("images %s", got)
			}
			if list, _ := s.List(); list[0].Attached != 1 {
				t.Errorf("the signature is lost: %+v", list[0])
			}
			git, err := os.ReadFile(filepath.Join(s.GitDir(), commitOne+".bundle"))
			if way != "directory" && (err != nil || string(git) != "history of "+commitOne) {
				t.Errorf("the repository is %q, %v", git, err)
			}
		})
	}
}

func TestHalfABundleIsNotVisible(t *testing.T) {
	first := pack(t, commitOne, nil, appOne)
	base, err := bundle.OpenBase(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	update := pack(t, commitTwo, base, appOne, appTwo)
	s := New(filepath.Join(t.TempDir(), "images"), "")
	_, err = s.Import(t.Context(), update, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "import it first") || !strings.Contains(err.Error(), commitOne) {
		t.Errorf("what an update builds on is missing: %v", err)
	}
	if got := names(t, s); got != "" {
		t.Errorf("images %s", got)
	}
	take(t, s, first)
	if r := take(t, s, update); r.Read > 150_000 {
		t.Errorf("the update brought %d bytes", r.Read)
	}
	if got := names(t, s); got != appOne+" "+appTwo {
		t.Errorf("images %s", got)
	}
	// A volume with both is read in the order that works.
	volume := t.TempDir()
	for name, from := range map[string]string{"a.tar": update, "b.tar": first} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(volume, name), content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if all, err := New(filepath.Join(t.TempDir(), "images"), "").Import(t.Context(), volume, nil, nil); err != nil || len(all) != 2 {
		t.Errorf("both on a volume: %+v, %v", all, err)
	}
}

func TestDamageIsRefusedAndNamed(t *testing.T) {
	file := pack(t, commitOne, nil, appOne)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, harm := range map[string]func([]byte) []byte{
		"a changed byte": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut off":        func(b []byte) []byte { return b[:len(b)/2] },
	} {
		s := New(filepath.Join(t.TempDir(), "images"), "")
		path := filepath.Join(t.TempDir(), "site.tar")
		if err := os.WriteFile(path, harm(bytes.Clone(content)), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), path, nil, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
		if got := names(t, s); got != "" {
			t.Errorf("%s: images %s", what, got)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		take(t, s, path)
	}
}

func TestTwoCommitsKeepTheirImages(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "images"), "")
	take(t, s, pack(t, commitOne, nil, appOne, "example.org/extra:7"))
	// Nothing is dropped before the commit of the bundle was accepted.
	if dropped, err := s.Prune(none, false); err != nil || len(dropped) > 0 {
		t.Fatalf("dropped %v, %v", dropped, err)
	}
	advance := func(commit string, images ...string) {
		t.Helper()
		for range 2 { // said twice, as after a restart
			if err := s.Advance(Pin{Commit: commit, Images: images}); err != nil {
				t.Fatal(err)
			}
		}
	}
	prune := func(want string) {
		t.Helper()
		dropped, err := s.Prune(none, false)
		if err != nil || strings.Join(dropped, " ") != want {
			t.Errorf("dropped %v, %v; want %s", dropped, err, want)
		}
	}
	advance(commitOne, appOne)
	prune("")
	take(t, s, pack(t, commitTwo, nil, appTwo))
	advance(commitTwo, appTwo)
	prune("")
	pins, err := s.Pins()
	if err != nil || pins.Current.Commit != commitTwo || pins.Previous.Commit != commitOne || !pins.Need("example.org/extra:7") {
		t.Errorf("pins %+v, %v", pins, err)
	}
	advance(commitThree, appTwo)
	prune(appOne + " example.org/extra:7")
	if got := names(t, s); got != appTwo {
		t.Errorf("images %s", got)
	}
	index, err := s.Open()
	if err != nil || len(index.Artifacts) != 1 {
		t.Errorf("signatures of what is gone are kept: %+v, %v", index.Artifacts, err)
	}
	needs, err := index.Needs()
	if err != nil {
		t.Fatal(err)
	}
	left := map[digest.Digest]bool{}
	for _, n := range needs {
		for _, d := range n.Blobs {
			left[d.Digest] = true
		}
	}
	if files := blobFiles(t, s); files != len(left) {
		t.Errorf("%d blobs, %d are needed", files, len(left))
	}
}

func blobFiles(t *testing.T, s *Store) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

const systemType = "application/vnd.test.system.config"

// packSystem makes a bundle of an image and an operating system that is signed.
func packSystem(t *testing.T, commit, image string, boot uint64) (file, reference string) {
	t.Helper()
	l := imagetest.New(t)
	l.Name(image, l.Image([]byte(image)))
	system := l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: l.Blob(systemType, []byte("{}")),
		Layers: []ocispec.Descriptor{l.Blob("application/vnd.test.boot", imagetest.Noise(boot, 1000)), l.Blob("application/vnd.test.root", imagetest.Noise(3, 100_000))},
	})
	reference = "example.org/os@" + system.Digest.String()
	l.Name(reference, system)
	l.Name("example.org/os:sha256-"+system.Digest.Encoded()+".sig", l.Image([]byte("a signature")))
	from, err := layout.Open(l.Save().Dir)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "site.tar")
	if _, err := bundle.Create(t.Context(), bundle.Options{
		To: file, Images: []string{image}, Artifacts: []bundle.Artifact{{Reference: reference, Type: systemType}}, Sources: []bundle.Source{bundle.Layout(from)},
		Git: &bundle.Git{Commit: commit, Write: func(_ context.Context, w *bytes.Buffer) error {
			_, err := w.WriteString("history")
			return err
		}},
	}); err != nil {
		t.Fatal(err)
	}
	return file, reference
}

// The operating system is kept as images are: for a bundle whose commit may come, and for two commits.
func TestTwoCommitsKeepTheirOperatingSystem(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "images"), "")
	file, first := packSystem(t, commitOne, appOne, 1)
	second, newer := packSystem(t, commitTwo, appTwo, 2)
	r := take(t, s, file)
	if len(r.Images) != 1 || len(r.Artifacts) != 1 || r.Artifacts[first] != first[len("example.org/os@"):] {
		t.Errorf("imported %+v", r)
	}
	index, err := s.Open()
	if err != nil || len(index.Images) != 1 || len(index.Standalone()) != 1 || index.Standalone()[0].Descriptor.ArtifactType != systemType {
		t.Fatalf("%+v, %v", index, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[1].Name != first || list[1].Type != systemType || list[1].Attached != 1 || strings.Join(list[1].For, " ") != "bundle "+commitOne {
		t.Errorf("%+v, %v", list, err)
	}
	keeps := func(want string) {
		t.Helper()
		if _, err := s.Prune(none, false); err != nil {
			t.Fatal(err)
		}
		if got := names(t, s); got != want {
			t.Errorf("kept are %s, want %s", got, want)
		}
	}
	advance := func(commit, image string, systems ...string) {
		t.Helper()
		if err := s.Advance(Pin{Commit: commit, Images: []string{image}, Artifacts: systems}); err != nil {
			t.Fatal(err)
		}
	}
	keeps(appOne + " " + first)
	advance(commitOne, appOne, first)
	if pins, err := s.Pins(); err != nil || strings.Join(pins.Names(), " ") != appOne {
		t.Errorf("containerd is to have %v, %v", pins.Names(), err)
	}
	take(t, s, second)
	advance(commitTwo, appTwo, newer)
	keeps(appOne + " " + appTwo + " " + first + " " + newer)
	take(t, s, second) // somebody brings it once more: it belongs to a commit that was accepted
	advance(commitThree, appTwo)
	keeps(appTwo + " " + newer)
	advance("4444444444444444444444444444444444444444", appTwo)
	keeps(appTwo)
	index, err = s.Open()
	if err != nil || len(index.Artifacts) != 0 {
		t.Errorf("the signature stays: %+v, %v", index.Artifacts, err)
	}
	// What no commit ever needed goes when somebody says so.
	take(t, s, file)
	keeps(appTwo + " " + appOne + " " + first)
	if dropped, err := s.Prune(none, true); err != nil || strings.Join(dropped, " ") != appOne+" "+first {
		t.Errorf("dropped %v, %v", dropped, err)
	}
}

func TestAnEntryThatIsCalledByAnotherDigestIsRefused(t *testing.T) {
	l := imagetest.New(t)
	l.Name("example.org/app@sha256:"+strings.Repeat("0", 64), l.Image([]byte("evil")))
	s := New(filepath.Join(t.TempDir(), "images"), "")
	if _, err := s.Import(t.Context(), l.Save().Dir, nil, nil); err == nil || !strings.Contains(err.Error(), "called by another") {
		t.Errorf("%v", err)
	}
	if got := names(t, s); got != "" {
		t.Errorf("images %s", got)
	}
}

func TestFilesAreSharedWithContainerd(t *testing.T) {
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.MkdirAll(filepath.Join(content, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := New(filepath.Join(dir, "images"), content)
	take(t, s, pack(t, commitOne, nil, appOne))
	index, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	image := index.Images[0].Descriptor
	needs, err := index.Needs()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range needs[0].Blobs {
		if ok, err := s.Lend(d); err != nil || !ok {
			t.Fatalf("lend %s: %v, %v", d.Digest, ok, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(s.contentPath(d.Digest), &st); err != nil || st.Nlink != 2 {
			t.Errorf("%s has %d names, %v", d.Digest, st.Nlink, err)
		}
	}
	// The other way: what only containerd has is kept without a copy.
	other := New(filepath.Join(dir, "other"), content)
	if err := other.Keep(appOne, image); err != nil {
		t.Fatal(err)
	}
	if got := names(t, other); got != appOne {
		t.Errorf("kept %s", got)
	}
	// A blob that went bad on disk is never given to containerd.
	layer := needs[0].Blobs[len(needs[0].Blobs)-1]
	path := s.blobs().Path(layer.Digest)
	if err := errors.Join(os.Remove(s.contentPath(layer.Digest)), os.Chmod(path, 0o600), os.Truncate(path, layer.Size-1), appendByte(path)); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Lend(layer); ok || err == nil || !strings.Contains(err.Error(), layer.Digest.String()) {
		t.Errorf("a damaged blob: %v, %v", ok, err)
	}
	// Where files cannot be shared, nothing is claimed.
	var apart *NotSharedError
	if err := New(filepath.Join(dir, "third"), filepath.Join(dir, "nowhere")).Keep(appOne, image); !errors.As(err, &apart) {
		t.Errorf("keep without containerd: %v", err)
	}
}

func appendByte(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{0xff})
	return errors.Join(err, f.Close())
}

func TestWatchTellsOfOtherProcesses(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "images"), "")
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- s.Watch(ctx, changed) }()
	told := func(what string, do func()) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			do()
			select {
			case <-changed:
				return
			case <-time.After(50 * time.Millisecond): // it may not watch yet
			case <-deadline:
				t.Fatalf("nobody tells of %s", what)
			}
		}
	}
	n := 0
	told("pins", func() {
		n++
		if err := s.Advance(Pin{Commit: fmt.Sprintf("%040d", n), Images: []string{appOne}}); err != nil {
			t.Fatal(err)
		}
	})
	file := pack(t, commitOne, nil, appOne)
	take(t, s, file)
	told("an import", func() {})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// importHelper makes this program import a bundle, so that it can be killed.
const importHelper = "BOTHY_TEST_IMPORT"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(importHelper)); len(args) == 2 {
		_, err := New(args[0], "").Import(context.Background(), args[1], nil, nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Fifty times an import is killed at a random moment. What is visible then is
// whole; the next one goes on; and in the end all is there.
func TestImportSurvivesBeingKilled(t *testing.T) {
	l := imagetest.New(t)
	var refs []string
	for i := range 4 {
		ref := fmt.Sprintf("example.org/big:%d", i)
		l.Name(ref, l.Image(imagetest.Noise(uint64(i), 8<<20), imagetest.Noise(uint64(i+10), 2<<20)))
		refs = append(refs, ref)
	}
	system := l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: l.Blob(systemType, []byte("{}")),
		Layers: []ocispec.Descriptor{l.Blob("application/vnd.test.root", imagetest.Noise(30, 8<<20))},
	})
	l.Name("example.org/os@"+system.Digest.String(), system)
	artifacts := []bundle.Artifact{{Reference: "example.org/os@" + system.Digest.String(), Type: systemType}}
	l.Save()
	from, err := layout.Open(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "site.tar")
	if _, err := bundle.Create(t.Context(), bundle.Options{To: file, Images: refs, Artifacts: artifacts, Sources: []bundle.Source{bundle.Layout(from)}}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "images")
	command := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), importHelper+"="+dir+" "+file)
		return cmd
	}
	began := time.Now()
	if out, err := command().CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(began)
	killed, visible := 0, 0
	for killed < 50 {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		var held int64
		for attempt := 0; ; attempt++ {
			cmd := command()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(rand.N(whole), func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			timer.Stop()
			visible += wholeImages(t, dir, len(refs))
			if err == nil {
				break
			}
			killed++
			now := bytesBelow(t, dir)
			if now < held {
				t.Errorf("attempt %d left %d bytes, the one before %d", attempt, now, held)
			}
			held = now
		}
		if got := wholeImages(t, dir, len(refs)); got != len(refs) {
			t.Fatalf("%d images after the import", got)
		}
	}
	t.Logf("killed %d times within %s; saw %d whole images on the way", killed, whole, visible)
}

// wholeImages counts the images that are visible, and hashes all of them.
func wholeImages(t *testing.T, dir string, want int) int {
	t.Helper()
	index, err := bundle.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(index.Images) != want || len(index.Standalone()) != 1 {
		t.Errorf("%d of %d images are visible, %d operating systems", len(index.Images), want, len(index.Standalone()))
	}
	for _, img := range slices.Concat(index.Images, index.Standalone()) {
		if err := index.Verify(img, "linux", runtime.GOARCH); err != nil {
			t.Errorf("%s is visible and not whole: %v", img.Name, err)
		}
	}
	return len(index.Images)
}

// bytesBelow counts what has arrived: blobs and beginnings of blobs.
func bytesBelow(t *testing.T, dir string) int64 {
	t.Helper()
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

func TestTheIndexIsAPlainLayout(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "images"), "")
	take(t, s, pack(t, "", nil, appOne))
	data, err := os.ReadFile(filepath.Join(s.Dir(), "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("%s: %v", data, err)
	}
	sound, _, err := bundle.Check(t.Context(), s.Dir())
	if err != nil || len(sound) > 0 {
		t.Errorf("%v, %v", sound, err)
	}
}

// Not every tool writes into the index what an entry is: what refers to an image is told by its manifest, and comes
// along. What refers to nothing does not.
func TestWhatRefersToAnImageComesAlong(t *testing.T) {
	l := imagetest.New(t)
	image := l.Image([]byte("x"))
	l.Name(appOne, image)
	referrer := l.Referrer(image, "application/vnd.test.signature", []byte("signature"))
	referrer.ArtifactType = ""
	l.Index.Manifests = append(l.Index.Manifests, referrer, l.Image([]byte("nobody names it")))
	s := New(filepath.Join(t.TempDir(), "images"), "")
	for range 2 {
		if _, err := s.Import(t.Context(), l.Save().Dir, nil, nil); err != nil {
			t.Fatal(err)
		}
		list, err := s.List()
		if err != nil || len(list) != 1 || list[0].Attached != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
	}
	i, err := s.Open()
	if err != nil || len(i.Artifacts) != 1 || i.Artifacts[0].Descriptor.Digest != referrer.Digest || bundle.SubjectOf(i.Artifacts[0].Descriptor) != image.Digest {
		t.Errorf("%+v, %v", i.Artifacts, err)
	}
}
