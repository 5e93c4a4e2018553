package bundle

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bothy-os/bothy/images/layer"
	"github.com/bothy-os/bothy/images/layout"
)

// Need is what an image consists of.
type Need struct {
	// Image is the image or artifact, Blobs everything that it refers to, itself
	// included.
	Image layout.Image
	Blobs []ocispec.Descriptor
	// Git says that it is the repository.
	Git bool
}

// Needs follows every entry of a bundle, whose documents must be on disk, down
// to the layers. Lists of images must have those for the platforms of the bundle,
// or of this machine if it says none.
func (i *Index) Needs() ([]Need, error) {
	platforms := i.Platforms
	if len(platforms) == 0 {
		platforms = []ocispec.Platform{{OS: "linux", Architecture: runtime.GOARCH}}
	}
	var out []Need
	var errs []error
	for _, img := range slices.Concat(i.Images, i.Artifacts, i.referring()) {
		n := Need{Image: img, Git: img.Descriptor.ArtifactType == GitArtifact}
		t, err := blobsOf(i.Layout, img.Descriptor, func(d ocispec.Descriptor) bool { return wants(platforms, d.Platform) })
		if err == nil {
			n.Blobs = t.all()
			err = i.platformsFit(img, platforms)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", called(img), err))
			continue
		}
		out = append(out, n)
	}
	return out, errors.Join(errs...)
}

// referring are the entries that refer to an image and say so nowhere but in their
// manifests.
func (i *Index) referring() []layout.Image {
	artifacts, subjects := i.Referring()
	for n := range artifacts {
		artifacts[n].Descriptor.Annotations = map[string]string{AnnotationSubject: subjects[n].String()}
	}
	return artifacts
}

// platformsFit compares what lists of images promise with what the images are.
func (i *Index) platformsFit(img layout.Image, platforms []ocispec.Platform) error {
	if layout.IsArtifact(img.Descriptor) || !layout.IsIndex(img.Descriptor.MediaType) {
		return nil
	}
	fit := 0
	var last error
	for _, p := range platforms {
		_, _, err := i.Manifest(img.Descriptor, p.OS, p.Architecture)
		var bad *layout.BlobError
		if errors.As(err, &bad) {
			return err
		}
		if last = err; err == nil {
			fit++
		}
	}
	if fit == 0 {
		return last
	}
	return nil
}

// called is how messages name an entry.
func called(img layout.Image) string {
	switch {
	case img.Name != "":
		return img.Name
	case img.Descriptor.ArtifactType == GitArtifact:
		return "the repository"
	}
	return "artifact " + img.Descriptor.Digest.String()
}

// Problem is something wrong with a bundle.
type Problem struct {
	// Where is the image or blob, What is wrong with it.
	Where string `json:"where"`
	What  string `json:"what"`
}

// Check reads a bundle to its end, layers as they would be unpacked, a directory or a tar file, and returns what
// is wrong with it, and how many bytes it hashed. An error means that it could
// not be found out.
func Check(ctx context.Context, path string) ([]Problem, int64, error) {
	c := &checker{sizes: map[digest.Digest]int64{}, documents: map[digest.Digest][]byte{}}
	if err := ReadPath(ctx, path, Visitor{Index: c.index, Blob: c.blob}); err != nil {
		return c.problems, c.hashed, err
	}
	return c.problems, c.hashed, c.compare()
}

// checker hashes what it is shown and remembers the documents, which are small.
type checker struct {
	read      *Index
	sizes     map[digest.Digest]int64
	documents map[digest.Digest][]byte
	problems  []Problem
	hashed    int64
}

// maxDocument bounds what is looked at as a manifest or configuration.
const maxDocument = 4 << 20

func (c *checker) index(r io.Reader) (err error) {
	c.read, err = DecodeIndex(r, "")
	return err
}

func (c *checker) blob(name digest.Digest, size int64, open func(int64) (io.ReadCloser, error)) error {
	content, err := open(0)
	if err != nil {
		return err
	}
	defer content.Close()
	hash := name.Algorithm().Digester()
	var document []byte
	in := bufio.NewReader(io.TeeReader(content, hash.Hash()))
	var refused *layer.RefusedError
	if beginning, _ := in.Peek(4); layer.IsPacked(beginning) { // else it is read, and the error seen, below
		if err := layer.Examine(in, layer.Limits{}); errors.As(err, &refused) {
			c.problems = append(c.problems, Problem{"blob " + name.String(), refused.Error()})
		}
	} else if size <= maxDocument {
		if document, err = io.ReadAll(in); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	c.hashed += size
	if got := hash.Digest(); got != name {
		c.problems = append(c.problems, Problem{"blob " + name.String(), fmt.Sprintf("its content hashes to %s", got)})
		return nil
	}
	c.sizes[name] = size
	if len(document) > 0 && (document[0] == '{' || document[0] == '\n' || document[0] == ' ') {
		c.documents[name] = document
	}
	return nil
}

// compare follows the index through the documents.
func (c *checker) compare() error {
	dir, err := os.MkdirTemp("", "bothy-check-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	for _, data := range c.documents {
		if _, err := (Blobs{Dir: dir}).Put("", data); err != nil {
			return err
		}
	}
	c.read.Dir = dir
	needs, err := c.read.Needs()
	for _, e := range unjoin(err) {
		c.problems = append(c.problems, Problem{"index.json", e.Error()})
	}
	for _, n := range needs {
		for _, d := range n.Blobs {
			c.present(n, d)
		}
	}
	return nil
}

func (c *checker) present(n Need, d ocispec.Descriptor) {
	size, ok := c.sizes[d.Digest]
	switch {
	case ok && size != d.Size:
		c.problems = append(c.problems, Problem{called(n.Image), fmt.Sprintf("blob %s has %d bytes instead of %d", d.Digest, size, d.Size)})
	case !ok && c.read.Base == "" && !slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Where == "blob "+d.Digest.String() }):
		c.problems = append(c.problems, Problem{called(n.Image), fmt.Sprintf("blob %s is missing", d.Digest)})
	}
}

func unjoin(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
