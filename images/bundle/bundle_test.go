package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	gcrlayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/internal/imagetest"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/registry"
)

var ours = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}

// depot is a layout with two images that share a layer, one of them for two
// platforms and with what is attached to it.
func depot(t *testing.T) *imagetest.Layout {
	t.Helper()
	l := imagetest.New(t)
	shared := imagetest.Noise(1, 200_000)
	l.Name("example.org/plain:1", l.Image(shared, imagetest.Noise(2, 1000)))
	mine, other := l.Image(shared, imagetest.Noise(3, 1000)), l.ImageFor("s390x", imagetest.Noise(4, 100_000))
	mine.Platform, other.Platform = &ours, &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	multi := l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, mine}})
	l.Name("example.org/multi:1", multi)
	l.Name("example.org/multi:sha256-"+multi.Digest.Encoded()+".sig", l.Image([]byte("a signature")))
	attestation := l.Referrer(multi, "application/vnd.in-toto+json", []byte("an attestation"))
	l.Index.Manifests = append(l.Index.Manifests, attestation, l.Referrer(attestation, "application/vnd.test.signature", []byte("of the attestation")))
	return l.Save()
}

func sourceOf(t *testing.T, dir string) Source {
	t.Helper()
	l, err := layout.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Layout(l)
}

func repo(text string) *Git {
	return &Git{Commit: strings.Repeat("ab", 20), Write: func(_ context.Context, w *bytes.Buffer) error {
		_, err := w.WriteString(text)
		return err
	}}
}

func options(t *testing.T, to string, from ...Source) Options {
	return Options{To: filepath.Join(t.TempDir(), to), Images: []string{"example.org/multi:1", "example.org/plain:1"}, Sources: from, Git: repo("history"), Site: "clusters/a"}
}

func create(t *testing.T, o Options) *Listing {
	t.Helper()
	list, err := Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sound(t *testing.T, path string) {
	t.Helper()
	problems, _, err := Check(t.Context(), path)
	if err != nil || len(problems) > 0 {
		t.Errorf("%s: %v, %v", path, problems, err)
	}
}

func TestTheSameImagesGiveTheSameBytes(t *testing.T) {
	from := sourceOf(t, depot(t).Dir)
	var files [2][]byte
	for i := range files {
		o := options(t, "site.tar", from)
		if i == 1 {
			o.Images[0], o.Images[1] = o.Images[1], o.Images[0]
		}
		list := create(t, o)
		if len(list.Images) != 2 || list.Images[0].Attached != 2 || list.Commit != o.Git.Commit {
			t.Errorf("listing %+v", list)
		}
		sound(t, o.To)
		var err error
		if files[i], err = os.ReadFile(o.To); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(o.To + ".partial"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the place it was made in is still there: %v", err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two bundles of the same differ")
	}
	if len(files[0]) > 300_000 {
		t.Errorf("%d bytes: the shared layer is there twice, or another platform is", len(files[0]))
	}
}

// Not every tool writes into the index what an entry is.
func TestWhatRefersToAnImageIsTakenWithoutItsType(t *testing.T) {
	l := imagetest.New(t)
	image := l.Image([]byte("x"))
	l.Name("example.org/app:1", image)
	referrer := l.Referrer(image, "application/vnd.test.signature", []byte("signature"))
	referrer.ArtifactType = ""
	l.Index.Manifests = append(l.Index.Manifests, referrer, l.Image([]byte("nobody names it")))
	list, err := Create(t.Context(), Options{To: filepath.Join(t.TempDir(), "x.tar"), Images: []string{"example.org/app:1"}, Sources: []Source{sourceOf(t, l.Save().Dir)}})
	if err != nil || len(list.Images) != 1 || list.Images[0].Attached != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestFromARegistryWithSignaturesAndReferrers(t *testing.T) {
	for what, referrers := range map[string]bool{"with referrers": true, "with tags for them": false} {
		t.Run(what, func(t *testing.T) {
			server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(referrers)))
			defer server.Close()
			host := strings.TrimPrefix(server.URL, "http://")
			push(t, host+"/multi", depot(t).Dir, referrers)
			client := registry.New(registry.Config{Keychain: authn.NewMultiKeychain(), Wait: time.Millisecond})
			o := options(t, "site.tar", client)
			o.Images = []string{host + "/multi:1"}
			list := create(t, o)
			want := 1
			if referrers {
				want = 2 // the library that pushes makes no tags for referrers
			}
			if len(list.Images) != 1 || list.Images[0].Attached != want || list.Images[0].Problem != "" {
				t.Errorf("listing %+v", list.Images)
			}
			sound(t, o.To)
		})
	}
}

// push copies the depot's image for two platforms to a registry.
func push(t *testing.T, to, dir string, referrers bool) {
	t.Helper()
	index, err := gcrlayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range manifest.Manifests {
		ref, repository := d.Annotations[ocispec.AnnotationRefName], "example.org/multi"
		if !strings.HasPrefix(ref, repository) && d.ArtifactType == "" || d.ArtifactType != "" && !referrers {
			continue
		}
		target := to + "@" + d.Digest.String()
		if ref != "" {
			target = to + strings.TrimPrefix(ref, repository)
		}
		at, err := name.ParseReference(target)
		if err != nil {
			t.Fatal(err)
		}
		if d.MediaType == types.OCIImageIndex {
			child, err := index.ImageIndex(d.Digest)
			if err == nil {
				err = remote.WriteIndex(at, child)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		child, err := index.Image(d.Digest)
		if err == nil {
			err = remote.Write(at, child)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// cut is a source whose blobs end early, as when a line goes down.
type cut struct {
	Source
	after int64
	read  int64
}

var errCut = errors.New("the line is down")

func (c *cut) Blob(ctx context.Context, repository string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	from, err := c.Source.Blob(ctx, repository, desc, offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(io.MultiReader(io.LimitReader(from, c.after), failing{desc.Size - offset - c.after}), counter{&c.read}), from}, nil
}

type failing struct{ left int64 }

func (f failing) Read([]byte) (int, error) {
	if f.left <= 0 {
		return 0, io.EOF
	}
	return 0, errCut
}

type counter struct{ n *int64 }

func (c counter) Write(p []byte) (int, error) { *c.n += int64(len(p)); return len(p), nil }

func TestAnInterruptedBundleGoesOn(t *testing.T) {
	l := depot(t)
	reference, _ := system(l, "example.org/os:1", imagetest.Noise(21, 5000), imagetest.Noise(20, 150_000))
	from := &cut{Source: sourceOf(t, l.Save().Dir), after: 60_000}
	o := options(t, "site.tar", from)
	o.Images = []string{"example.org/plain:1"}
	o.Artifacts = []Artifact{{Reference: "example.org/os@" + reference[strings.Index(reference, "sha256:"):], Type: systemType}}
	attempts := 0
	for {
		attempts++
		_, err := Create(t.Context(), o)
		if err == nil {
			break
		}
		if !errors.Is(err, errCut) || attempts > 10 {
			t.Fatal(err)
		}
		if _, err := os.Stat(o.To); err == nil {
			t.Fatal("there is a file although something is missing")
		}
	}
	list, err := os.Stat(o.To)
	if err != nil {
		t.Fatal(err)
	}
	if attempts < 3 || from.read > list.Size() {
		t.Errorf("%d attempts, %d bytes read for a bundle of %d: it began again", attempts, from.read, list.Size())
	}
	sound(t, o.To)
}

func TestASecondBundleHasOnlyTheDifference(t *testing.T) {
	l := depot(t)
	first := options(t, "first.tar", sourceOf(t, l.Dir))
	create(t, first)
	shared, fresh := imagetest.Noise(1, 200_000), imagetest.Noise(9, 50_000)
	l.Name("example.org/plain:2", l.Image(shared, fresh))
	l.Save()
	base, err := OpenBase(t.Context(), first.To)
	if err != nil {
		t.Fatal(err)
	}
	second := options(t, "second.tar", sourceOf(t, l.Dir))
	second.Images = []string{"example.org/multi:1", "example.org/plain:2"}
	second.Base = base
	list := create(t, second)
	if list.Size < 50_000 || list.Size > 60_000 || list.Base != base.Digest.String() {
		t.Errorf("%d bytes on top of %s", list.Size, list.Base)
	}
	sound(t, second.To)
	// What builds on the second has what the first had.
	on, err := OpenBase(t.Context(), second.To)
	if err != nil {
		t.Fatal(err)
	}
	third := options(t, "third.tar", sourceOf(t, l.Dir))
	third.Images, third.Base = second.Images, on
	if list := create(t, third); list.Size > 10_000 {
		t.Errorf("nothing is new, and the bundle has %d bytes", list.Size)
	}
}

const systemType = "application/vnd.test.system.config"

// system adds an operating system of two parts, as its builder names it.
func system(l *imagetest.Layout, name string, boot, root []byte) (reference string, d ocispec.Descriptor) {
	d = l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: l.Blob(systemType, []byte(`{"architecture":"s390x","os":"linux"}`)),
		Layers: []ocispec.Descriptor{l.Blob("application/vnd.test.boot", boot), l.Blob("application/vnd.test.root", root)},
	})
	l.Name(name, d)
	return "registry.example.org/os@" + d.Digest.String(), d
}

// What is no image to run is in the bundle as what it is, with what was signed about it.
func TestAnOperatingSystemIsNoImage(t *testing.T) {
	l := depot(t)
	root := imagetest.Noise(20, 150_000)
	first, desc := system(l, "devel", imagetest.Noise(21, 5000), root)
	l.Name("devel:sha256-"+desc.Digest.Encoded()+".sig", l.Image([]byte("a signature")))
	l.Index.Manifests = append(l.Index.Manifests, l.Referrer(desc, "application/vnd.in-toto+json", []byte("an attestation")))
	second, _ := system(l, "newer", imagetest.Noise(22, 5000), root)
	l.Save()
	from, err := layout.Open(l.Dir)
	if err != nil {
		t.Fatal(err)
	}
	with := func(to, reference, kind string) Options {
		o := options(t, to, Layout(from))
		o.Artifacts = []Artifact{{Reference: reference, Type: kind, Sources: []Source{LayoutByDigest(from)}}}
		return o
	}
	o := with("site.tar", first, systemType)
	list := create(t, o)
	if len(list.Images) != 2 || len(list.Artifacts) != 1 || list.Artifacts[0].Name != first || list.Artifacts[0].Type != systemType || list.Artifacts[0].Attached != 2 || list.Artifacts[0].Carried < 150_000 || list.Artifacts[0].Problem != "" {
		t.Errorf("listing %+v", list)
	}
	sound(t, o.To)
	again := with("again.tar", first, systemType)
	create(t, again)
	a, err := os.ReadFile(o.To)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(again.To); err != nil || !bytes.Equal(a, b) {
		t.Errorf("two bundles of the same differ: %v", err)
	}
	// An update with the same root brings the other part only.
	update := with("update.tar", second, systemType)
	if update.Base, err = OpenBase(t.Context(), o.To); err != nil {
		t.Fatal(err)
	}
	if list := create(t, update); list.Artifacts[0].Carried > 10_000 || list.Artifacts[0].Size < 150_000 || list.Artifacts[0].Problem != "" {
		t.Errorf("listing %+v", list.Artifacts)
	}
	sound(t, update.To)
	// What is something else is not taken for it.
	for reference, c := range map[string]struct{ kind, want string }{
		first: {"application/vnd.test.other", systemType},
		"registry.example.org/os@sha256:" + strings.Repeat("0", 64): {systemType, "does not exist"},
	} {
		bad := with("bad.tar", reference, c.kind)
		if _, err := Create(t.Context(), bad); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), reference) {
			t.Errorf("%s: %v", reference, err)
		}
		if _, err := os.Stat(bad.To); err == nil {
			t.Error("there is a bundle")
		}
	}
}

// liar is a source that has another image under the digest that is asked for.
type liar struct {
	Source
	has ocispec.Descriptor
}

func (l liar) Resolve(context.Context, string) (ocispec.Descriptor, error) { return l.has, nil }

func TestAnImageIsWhatItsDigestSays(t *testing.T) {
	l := depot(t)
	o := options(t, "site.tar", liar{sourceOf(t, l.Dir), l.Index.Manifests[0]})
	o.Images = []string{"example.org/plain@sha256:" + strings.Repeat("0", 64)}
	if _, err := Create(t.Context(), o); err == nil || !strings.Contains(err.Error(), "a source takes "+l.Index.Manifests[0].Digest.String()) {
		t.Errorf("%v", err)
	}
}

func TestWhatCannotBeBundledSaysWhy(t *testing.T) {
	l := depot(t)
	l.Name("example.org/foreign:1", l.ImageFor("s390x", []byte("x")))
	lying := l.ImageFor("s390x", []byte("y"))
	lying.Platform = &ours
	l.Name("example.org/lying:1", l.JSON(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{lying}}))
	broken := l.Image(imagetest.Noise(5, 5000))
	l.Name("example.org/broken:1", broken)
	l.Save()
	read := sourceOf(t, l.Dir)
	data, err := (&layout.Layout{Dir: l.Dir}).ReadBlob(broken)
	if err != nil {
		t.Fatal(err)
	}
	m, err := layout.DecodeManifest(data, broken)
	if err != nil {
		t.Fatal(err)
	}
	layer := l.Path(m.Layers[0].Digest)
	content, err := os.ReadFile(layer)
	if err != nil {
		t.Fatal(err)
	}
	content[100] ^= 1
	if err := os.WriteFile(layer, content, 0o644); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"example.org/none:1":    "does not exist",
		"example.org/foreign:1": "linux/s390x",
		"example.org/lying:1":   "linux/s390x",
		"example.org/broken:1":  m.Layers[0].Digest.String(),
	} {
		o := options(t, "site.tar", read)
		o.Images = []string{ref}
		_, err := Create(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ref) {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := os.Stat(o.To); err == nil {
			t.Errorf("%s: there is a bundle", ref)
		}
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	for what, c := range map[string]struct {
		harm func(t *testing.T, l *imagetest.Layout, layer digest.Digest)
		want string
	}{
		"changed": {func(t *testing.T, l *imagetest.Layout, layer digest.Digest) {
			data, err := os.ReadFile(l.Path(layer))
			if err != nil {
				t.Fatal(err)
			}
			data[10] ^= 1
			if err := os.WriteFile(l.Path(layer), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "hashes to"},
		"a name that leads out": {func(t *testing.T, l *imagetest.Layout, layer digest.Digest) {
			evil := imagetest.Gzip(t, imagetest.Tar(t, &tar.Header{Name: "../../etc/x", Mode: 0o644}, []byte("x")))
			if err := os.WriteFile(l.Path(layer), evil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "leads out"},
		"missing": {func(t *testing.T, l *imagetest.Layout, layer digest.Digest) {
			if err := os.Remove(l.Path(layer)); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
	} {
		l := imagetest.New(t)
		image := l.Image(imagetest.Noise(1, 5000))
		l.Name("example.org/a:1", image)
		l.Save()
		data, err := (&layout.Layout{Dir: l.Dir}).ReadBlob(image)
		if err != nil {
			t.Fatal(err)
		}
		m, err := layout.DecodeManifest(data, image)
		if err != nil {
			t.Fatal(err)
		}
		sound(t, l.Dir)
		c.harm(t, l, m.Layers[0].Digest)
		problems, _, err := Check(t.Context(), l.Dir)
		if err != nil || len(problems) == 0 || !strings.Contains(problems[0].What+problems[0].Where, m.Layers[0].Digest.String()) || !strings.Contains(problems[0].What, c.want) {
			t.Errorf("%s: %+v, %v", what, problems, err)
		}
	}
}

func TestHostileArchives(t *testing.T) {
	pack := func(headers ...*tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			content := []byte(`{"manifests":[]}`)
			h.Size = int64(len(content))
			if h.Typeflag != tar.TypeReg {
				h.Size, content = 0, nil
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	blob := "blobs/sha256/" + strings.Repeat("a", 64)
	for what, c := range map[string]struct {
		data []byte
		want string
	}{
		"no index":           {pack(file("oci-layout")), "no index.json"},
		"two":                {pack(file("index.json"), file("./index.json")), "two index.json"},
		"a link as blob":     {pack(file("index.json"), &tar.Header{Name: blob, Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}), "no plain file"},
		"a link as index":    {pack(&tar.Header{Name: "index.json", Typeflag: tar.TypeLink, Linkname: "x"}), "no plain file"},
		"compressed":         {imagetest.Gzip(t, pack(file("index.json"))), "uncompressed"},
		"cut off":            {pack(file("index.json"), file(blob))[:1540], "unexpected EOF"},
		"paths lead nowhere": {pack(file("index.json"), file("../../etc/passwd"), file("blobs/sha256/../../x"), file("/blobs/sha256/"+strings.Repeat("b", 64))), ""},
	} {
		visited := 0
		err := Read(t.Context(), bytes.NewReader(c.data), Visitor{
			Index: func(r io.Reader) error { _, err := DecodeIndex(r, ""); return err },
			Blob: func(_ digest.Digest, _ int64, open func(int64) (io.ReadCloser, error)) error {
				visited++
				content, err := open(0)
				if err == nil {
					_, err = io.Copy(io.Discard, content)
				}
				return err
			},
		})
		if c.want == "" && (err != nil || visited > 0) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %d blobs", what, err, visited)
		}
	}
}

func FuzzDecodeIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Add([]byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"org.opencontainers.image.ref.name":"a/b:sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a.sig"}}],"annotations":{"dev.bothy.bundle.version":"1","dev.bothy.bundle.platforms":"linux/amd64 linux/arm/v7"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		i, err := DecodeIndex(bytes.NewReader(data), dir)
		if err != nil {
			return
		}
		i.List()
		if needs, err := i.Needs(); err == nil && len(needs) > 0 {
			t.Errorf("an empty directory has %d complete images", len(needs))
		}
		for _, img := range append(i.Images, i.Artifacts...) {
			if path := (Blobs{Dir: dir}).Path(img.Descriptor.Digest); filepath.Dir(filepath.Dir(path)) != filepath.Join(dir, "blobs") {
				t.Errorf("a digest leads to %s", path)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("index.json"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = Read(context.Background(), bytes.NewReader(data), Visitor{ // must neither panic nor hang
			Index: func(r io.Reader) error { _, err := DecodeIndex(r, ""); return err },
			Blob: func(_ digest.Digest, _ int64, open func(int64) (io.ReadCloser, error)) error {
				content, err := open(0)
				if err == nil {
					_, err = io.Copy(io.Discard, content)
				}
				return err
			},
		})
	})
}
