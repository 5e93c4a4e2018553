package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/gpt"
	"github.com/bothy-os/bothy/os/image/fat"
	"github.com/bothy-os/bothy/os/verity"
)

// cache is where `make image` keeps packages.
const cache = "../../build/os/debian"

// options are for an image whose binaries do nothing.
func options(t *testing.T) Options {
	t.Helper()
	if _, err := os.Stat(cache); err != nil {
		t.Skip("the packages of Debian are not here: `make image` fetches them")
	}
	bin := t.TempDir()
	source := filepath.Join(bin, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range binaries() {
		cmd := exec.Command("go", "build", "-o", filepath.Join(bin, name), source)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	images := t.TempDir()
	if _, err := layout.Write(images, empty.Index); err != nil {
		t.Fatal(err)
	}
	return Options{
		BinDir: bin, ImagesDir: images, Flavour: FlavourVM, Version: "v1.2.3", Time: time.Unix(1795000000, 0), OutDir: t.TempDir(),
		Name: "bothy-vm", CacheDir: cache, Log: slog.New(slog.DiscardHandler), Compression: "lz4",
	}
}

// An image is built twice, in different places; the rest looks at one of them.
func TestImage(t *testing.T) {
	opts := options(t)
	first, err := Build(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	out := opts.OutDir
	opts.OutDir = elsewhere(t)
	old := unix.Umask(0o077)
	second, err := Build(t.Context(), opts)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range first.Artifacts {
		if b := second.Artifacts[i]; a != b {
			t.Errorf("two builds differ: %+v, %+v", a, b)
		}
	}
	path := func(ending string) string { return filepath.Join(out, "bothy-vm"+ending) }
	root := read(t, path(".root"))
	t.Run("boot file", func(t *testing.T) { checkBootFile(t, path(".efi"), first) })
	t.Run("root", func(t *testing.T) { checkRoot(t, root, first) })
	t.Run("disk", func(t *testing.T) { checkDisk(t, path(".raw"), read(t, path(".efi")), root) })
	t.Run("medium", func(t *testing.T) { checkMedium(t, path(".iso"), read(t, path(".efi")), root) })
	t.Run("qcow2", func(t *testing.T) { checkQCOW2(t, path(".raw"), path(".qcow2")) })
	t.Run("artifact", func(t *testing.T) { checkArtifact(t, path(".oci"), first) })
	t.Run("sbom", func(t *testing.T) { checkSBOM(t, read(t, path(".spdx.json"))) })
}

// elsewhere is a directory on another kind of file system, which lists files in another
// order, if there is one.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bothy-image-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func checkBootFile(t *testing.T, file string, r *Result) {
	f, err := pe.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := map[string]string{}
	for _, s := range f.Sections {
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		text[s.Name] = string(data[:s.VirtualSize])
	}
	if want := "bothy.root=" + r.RootHash; !strings.Contains(text[".cmdline"], want) {
		t.Errorf("the command line %q has no %s", text[".cmdline"], want)
	}
	if !strings.Contains(text[".osrel"], `VERSION_ID="v1.2.3"`) || text[".uname"] != r.Kernel {
		t.Errorf("%q, %q", text[".osrel"], text[".uname"])
	}
	if len(text[".linux"]) < 5<<20 || !strings.HasPrefix(text[".initrd"], "\x28\xb5\x2f\xfd") {
		t.Errorf("a kernel of %d bytes, an initramfs that begins with %x", len(text[".linux"]), text[".initrd"][:4])
	}
}

func checkRoot(t *testing.T, root []byte, r *Result) {
	hash, err := verity.ParseHash(r.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verity.Find(bytes.NewReader(root), r.Blocks, hash); err != nil {
		t.Error(err)
	}
	const magicAt, magic = 1024, "\xe2\xe1\xf5\xe0"
	if !bytes.HasPrefix(root[magicAt:], []byte(magic)) {
		t.Error("the root file system is no erofs")
	}
}

func checkDisk(t *testing.T, file string, uki, root []byte) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{disks.ESP, disks.RootA, disks.RootB, disks.Data}
	for i, p := range table.Partitions {
		if p.Name != names[i] {
			t.Errorf("partition %d is %s, not %s", i, p.Name, names[i])
		}
	}
	slot := make([]byte, len(root))
	if _, err := f.ReadAt(slot, table.Partitions[1].Offset()); err != nil || !bytes.Equal(slot, root) {
		t.Errorf("the first slot does not hold the root file system: %v", err)
	}
	mtype, err := exec.LookPath("mtype")
	if err != nil {
		t.Skip("mtype is not installed")
	}
	esp := file + "@@1M"
	got, err := exec.Command(mtype, "-i", esp, "::"+BootFile).Output()
	if err != nil || !bytes.Equal(got, uki) {
		t.Errorf("the ESP does not hold the boot file: %d bytes, %v", len(got), err)
	}
}

// checkMedium reads the medium in both ways that there are.
func checkMedium(t *testing.T, file string, uki, root []byte) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, size)
	if err != nil || len(table.Partitions) != 2 || table.Partitions[1].Name != disks.RootA {
		t.Fatalf("%+v, %v", table, err)
	}
	catalog := make([]byte, isoSector)
	if _, err := f.ReadAt(catalog, isoCatalog*isoSector); err != nil {
		t.Fatal(err)
	}
	if at := int64(binary.LittleEndian.Uint32(catalog[40:])) * isoSector; at != table.Partitions[0].Offset() {
		t.Errorf("a drive starts from byte %d, a stick from %d", at, table.Partitions[0].Offset())
	}
	boot, err := fat.ReadFile(io.NewSectionReader(f, table.Partitions[0].Offset(), table.Partitions[0].Size()), BootFile)
	if err != nil || !bytes.Equal(boot, uki) {
		t.Errorf("the boot file on it is another: %d bytes, %v", len(boot), err)
	}
	slot := make([]byte, len(root))
	if _, err := f.ReadAt(slot, table.Partitions[1].Offset()); err != nil || !bytes.Equal(slot, root) {
		t.Errorf("the root file system on it is another: %v", err)
	}
	tool, err := exec.LookPath("isoinfo")
	if err != nil {
		t.Skip("isoinfo is not installed")
	}
	out, err := exec.Command(tool, "-l", "-d", "-i", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Volume id: BOTHY\n") || !strings.Contains(string(out), "El Torito VD version 1 found") {
		t.Errorf("%v: %s", err, out)
	}
}

func checkQCOW2(t *testing.T, raw, qcow2 string) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	if out, err := exec.Command(tool, "check", qcow2).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := exec.Command(tool, "compare", "-f", "raw", "-F", "qcow2", raw, qcow2).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func checkArtifact(t *testing.T, dir string, r *Result) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	manifest, err := img.Manifest()
	if err != nil || manifest.Annotations["dev.bothy.os.root-hash"] != r.RootHash || len(manifest.Layers) != 3 {
		t.Errorf("%+v, %v", manifest, err)
	}
	if d := m.Manifests[0].Digest.String(); d != r.Artifact(".oci").Digest {
		t.Errorf("digest %s, said to be %s", d, r.Artifact(".oci").Digest)
	}
}

func checkSBOM(t *testing.T, data []byte) {
	var d spdxDocument
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	ids := map[string]bool{spdxDocID: true}
	for _, p := range d.Packages {
		versions[p.Name] = p.VersionInfo
		ids[p.SPDXID] = true
	}
	for _, name := range []string{"bothy-vm", "linux-image-6.12.117+deb13-cloud-amd64", stubPackage, certificatesPackage, "stdlib"} {
		if versions[name] == "" {
			t.Errorf("%s is not listed with a version: %v", name, versions)
		}
	}
	for _, r := range d.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("%+v is about something that is not listed", r)
		}
	}
}

// Whatever else gets into an image has to be added here, by somebody who knows why.
func TestNothingIsInTheRootButWhatIsMeantToBe(t *testing.T) {
	opts := options(t)
	_, modules, err := selectModules(opts.Flavour)
	if err != nil {
		t.Fatal(err)
	}
	in, err := fetch(t.Context(), opts.CacheDir, opts.Flavour)
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := (&builder{opts: opts, in: in, modules: modules}).stage(tree); err != nil {
		t.Fatal(err)
	}
	allowed := regexp.MustCompile(`^(bin|sbin|lib|usr/sbin|usr/bin/(bothy|bothy-cni|bothy-init|containerd-shim-runc-v2|runc|init|modprobe|mount|umount)` +
		`|etc/(ssl/certs/ca-certificates\.crt|os-release|passwd|group|hosts|resolv\.conf|machine-id|mtab)` +
		`|usr/lib/modules/` + regexp.QuoteMeta(in.kernel.Release) + `/(modules\.(dep|alias|builtin|builtin\.modinfo)|kernel/.*\.ko)` +
		`|usr/share/bothy/images/(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}))$`)
	files := 0
	err = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		if !allowed.MatchString(rel) {
			t.Errorf("%s is in the image", rel)
		}
		files++
		return err
	})
	if err != nil || files < 50 {
		t.Errorf("%d files, %v", files, err)
	}
}

func TestWhatCannotBeBuiltIsRefused(t *testing.T) {
	good := Options{Flavour: FlavourVM, Name: "bothy", Version: "v1", Time: time.Unix(1, 0)}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Options){
		"flavour": func(o *Options) { o.Flavour = "toaster" },
		"name":    func(o *Options) { o.Name = "../x" },
		"version": func(o *Options) { o.Version = "a\nb" },
		"time":    func(o *Options) { o.Time = time.Time{} },
	} {
		opts := good
		change(&opts)
		if err := opts.check(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
