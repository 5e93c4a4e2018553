package images

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ctrdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/store"
)

const (
	commitOne   = "1111111111111111111111111111111111111111"
	commitTwo   = "2222222222222222222222222222222222222222"
	commitThree = "3333333333333333333333333333333333333333"
)

// kept is a containerd with a store that shares its files.
type kept struct {
	*containerd
	store  *store.Store
	images *Images
}

func newKept(t *testing.T, layouts ...string) *kept {
	t.Helper()
	c := newContainerd(t)
	k := &kept{containerd: c, store: store.New(filepath.Join(c.dir, "images"), filepath.Join(c.dir, "content"))}
	c.target.store = k.store
	k.images = New(Config{Layouts: layouts, First: "x/pause:1", Store: k.store, Log: slog.New(slog.DiscardHandler)})
	return k
}

func (k *kept) pass() map[string]bool {
	k.t.Helper()
	wanted, err := k.images.pass(k.ctx, k.target)
	if err != nil {
		k.t.Fatal(err)
	}
	return wanted
}

// carry imports a bundle of images for a commit.
func (k *kept) carry(commit string, names ...string) {
	k.t.Helper()
	l := imagetest.New(k.t)
	for _, name := range names {
		l.Name(name, l.Image([]byte("shared by all"), []byte(name)))
	}
	l.Save()
	from, err := layout.Open(l.Dir)
	if err != nil {
		k.t.Fatal(err)
	}
	to := filepath.Join(k.t.TempDir(), "site.tar")
	if _, err := bundle.Create(k.t.Context(), bundle.Options{
		To: to, Images: names, Sources: []bundle.Source{bundle.Layout(from)},
		Git: &bundle.Git{Commit: commit, Write: writeNothing},
	}); err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.store.Import(k.t.Context(), to, nil, nil); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kept) advance(commit string, names ...string) {
	k.t.Helper()
	if err := k.store.Advance(store.Pin{Commit: commit, Images: names}); err != nil {
		k.t.Fatal(err)
	}
	k.pass()
}

// pinned lists what the kubelet would not collect.
func (k *kept) pinned() string {
	k.t.Helper()
	list, err := k.target.client.ImageService().List(k.ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		if i.Labels[pinnedLabel] == pinnedValue && !strings.Contains(i.Name, "@") {
			names = append(names, i.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestTheImagesOfTwoCommitsArePinned(t *testing.T) {
	k := newKept(t, testLayout(t, "x/pause:1"))
	k.carry(commitOne, "x/app:1")
	k.pass()
	if got := k.pinned(); got != "x/app:1 x/pause:1" {
		t.Errorf("before a commit: %s", got)
	}
	k.advance(commitOne, "x/app:1")
	k.carry(commitTwo, "x/app:2")
	k.advance(commitTwo, "x/app:2")
	if got := k.pinned(); got != "x/app:1 x/app:2 x/pause:1" {
		t.Errorf("two commits: %s", got)
	}
	k.advance(commitThree, "x/app:2")
	if got := k.pinned(); got != "x/app:2 x/pause:1" {
		t.Errorf("superseded twice: %s", got)
	}
	img, err := k.target.client.ImageService().Get(k.ctx, "x/app:1")
	if err != nil || img.Labels[managedLabel] != managedValue {
		t.Errorf("the kubelet is to remove it, not we: %+v, %v", img, err)
	}
}

// An operating system is the store's to keep, and no image for containerd.
func TestAnOperatingSystemIsNotGivenToContainerd(t *testing.T) {
	const kind = "application/vnd.test.system.config"
	k := newKept(t, testLayout(t, "x/pause:1"))
	l := imagetest.New(t)
	root := l.Blob("application/vnd.test.root", imagetest.Noise(4, 10_000))
	system := l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: l.Blob(kind, []byte("{}")), Layers: []ocispec.Descriptor{root}})
	system.ArtifactType = kind
	name := "x/os@" + system.Digest.String()
	l.Name(name, system)
	if _, err := k.store.Import(t.Context(), l.Save().Dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	k.pass()
	if err := k.store.Advance(store.Pin{Commit: commitOne, Artifacts: []string{name}}); err != nil {
		t.Fatal(err)
	}
	k.pass()
	list, err := k.target.client.ImageService().List(k.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if img.Target.Digest == system.Digest {
			t.Errorf("containerd has it as %s", img.Name)
		}
	}
	for _, d := range []ocispec.Descriptor{system, root} {
		if _, err := k.target.client.ContentStore().Info(k.ctx, d.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("containerd has its content %s: %v", d.Digest, err)
		}
	}
	if kept, err := k.store.List(); err != nil || len(kept) != 1 || kept[0].Name != name {
		t.Errorf("the store has %+v, %v", kept, err)
	}
}

func TestWhatIsRemovedByForceComesBackWithoutACopy(t *testing.T) {
	k := newKept(t)
	k.carry(commitOne, "x/pause:1", "x/app:1")
	k.advance(commitOne, "x/app:1")
	before := fileOf(t, k, "x/app:1")
	k.lose("x/app:1")
	k.pass()
	if got := k.pinned(); got != "x/app:1 x/pause:1" {
		t.Errorf("pinned: %s", got)
	}
	if after := fileOf(t, k, "x/app:1"); !os.SameFile(before, after) {
		t.Error("the content was copied")
	}
	k.collectGarbage()
	if wanted := k.pass(); !wanted["x/app:1"] {
		t.Errorf("wanted %v", wanted)
	}
}

// fileOf is the file in which containerd has an image's manifest.
func fileOf(t *testing.T, k *kept, name string) os.FileInfo {
	t.Helper()
	img, err := k.target.client.ImageService().Get(k.ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(k.dir, "content", "blobs", "sha256", img.Target.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// An image that the kubelet pulled is pinned and kept once a commit needs it, and
// comes back although the registry is gone.
func TestWhatWasPulledIsKept(t *testing.T) {
	k := newKept(t, testLayout(t, "x/pause:1"))
	l := imagetest.New(t)
	l.Name("registry.example.org/app:1", l.Image([]byte("pulled")))
	pulled, err := layout.Open(l.Save().Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.target.put(k.ctx, pulled, pulled.Images[0]); err != nil {
		t.Fatal(err)
	}
	for _, name := range namesOf(pulled.Images[0]) { // as containerd leaves them after a pull
		if _, err := k.target.client.ImageService().Update(k.ctx, ctrdimages.Image{
			Name: name, Target: plain(pulled.Images[0].Descriptor), Labels: map[string]string{managedLabel: managedValue},
		}, "labels"); err != nil {
			t.Fatal(err)
		}
	}
	k.pass()
	if got := k.pinned(); got != "x/pause:1" {
		t.Errorf("nobody needs it: %s", got)
	}
	k.advance(commitOne, "registry.example.org/app:1", "registry.example.org/not-pulled-yet:1")
	if got := k.pinned(); got != "registry.example.org/app:1 x/pause:1" {
		t.Errorf("needed: %s", got)
	}
	k.lose("registry.example.org/app:1")
	k.pass()
	if got := k.pinned(); got != "registry.example.org/app:1 x/pause:1" {
		t.Errorf("after it was removed by force: %s", got)
	}
}

// A store that lost a file to the disk still pins the rest, and says what is
// wrong.
func TestADamagedStoreDoesNotKeepOthersFromBeingPinned(t *testing.T) {
	k := newKept(t)
	k.carry(commitOne, "x/pause:1", "x/app:1", "x/bad:1")
	index, err := k.store.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range index.Images {
		if img.Name == "x/bad:1" {
			if err := os.Remove(index.BlobPath(img.Descriptor.Digest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.store.Advance(store.Pin{Commit: commitOne, Images: []string{"x/app:1"}}); err != nil {
		t.Fatal(err)
	}
	_, err = k.images.pass(k.ctx, k.target)
	if err == nil || !strings.Contains(err.Error(), "x/bad:1") {
		t.Errorf("nothing is said: %v", err)
	}
	if got := k.pinned(); got != "x/app:1 x/pause:1" {
		t.Errorf("pinned: %s", got)
	}
}

func TestOtherNodesGetByTagWhatTheSiteNeeds(t *testing.T) {
	k := newKept(t)
	k.carry(commitOne, "x/pause:1", "x/app:1")
	k.advance(commitOne, "x/app:1")
	images := keptImages{k.target.client.ImageService()}
	img, err := k.target.client.ImageService().Get(k.ctx, "x/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := images.Find(k.ctx, "x/app:1"); err != nil || got.Digest != img.Target.Digest {
		t.Errorf("what is kept: %+v, %v", got, err)
	}
	k.advance(commitTwo)
	k.advance(commitThree)
	if _, err := images.Find(k.ctx, "x/app:1"); !errdefs.IsNotFound(err) {
		t.Errorf("what nobody needs any more: %v", err)
	}
}

func writeNothing(context.Context, *bytes.Buffer) error { return nil }
