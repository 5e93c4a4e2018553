package appliance

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/bothy-os/bothy/test/cluster/gitserver"
)

// variant is an image of the operating system that differs from the one that is installed.
type variant struct {
	// replace names a program of the image that a faulty one takes the place of; fault is
	// how that fails.
	replace, fault string
	// append are arguments for the kernel.
	append string
	// later is added to the time of the build, in seconds: another image with the same
	// programs.
	later int
}

// build makes an image and returns its OCI layout and the digest.
func (b *bench) build(t *testing.T, label string, v variant) (dir, digest string) {
	t.Helper()
	bin := filepath.Join(b.dir, label+".bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"bothy", "bothy-cni", "bothy-init", "containerd-shim-runc-v2", "runc"} {
		if err := os.Symlink(filepath.Join(b.paths.Bin, program), filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	if v.replace != "" {
		file := filepath.Join(bin, v.replace)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		b.run(t, "go", "build", "-ldflags", "-s -w -X main.fault="+v.fault, "-o", file, "./faulty")
	}
	args := []string{
		"SOURCE_DATE_EPOCH=" + fmt.Sprint(b.installed(t).Time.Unix()+int64(v.later)),
		b.paths.Bothy(), "os", "build", "--out", b.dir, "--name", label, "--bin", bin, "--images", filepath.Join(b.paths.Root, "build/os/pause"),
		"--compression", "lz4", "--cache", filepath.Join(b.paths.Root, "build/os/debian"), "-o", "json",
	}
	if v.append != "" {
		args = append(args, "--append", v.append)
	}
	b.run(t, "env", args...)
	for _, ending := range []string{".raw", ".qcow2", ".root", ".bin"} {
		if err := os.RemoveAll(filepath.Join(b.dir, label+ending)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(b.dir, label+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var made imageResult
	if err := json.Unmarshal(data, &made); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(made.Artifacts, func(a artifact) bool { return a.Digest != "" })
	if i < 0 {
		t.Fatal("`bothy os build` made no OCI artifact")
	}
	return filepath.Join(b.dir, label+".oci"), made.Artifacts[i].Digest
}

// imageResult is what `bothy os build` says.
type imageResult struct {
	Time      time.Time  `json:"time"`
	Artifacts []artifact `json:"artifacts"`
}

type artifact struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// installed describes the image that machines begin with.
func (b *bench) installed(t *testing.T) imageResult {
	t.Helper()
	data, err := os.ReadFile(b.image + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var made imageResult
	if err := json.Unmarshal(data, &made); err != nil {
		t.Fatal(err)
	}
	return made
}

// store is a registry, at the address of the Git server.
type store struct {
	host string
	// truncate keeps what follows so many bytes of a blob; 0 for not at all.
	truncate atomic.Int64
}

func startStore(t *testing.T, server *gitserver.Server) *store {
	t.Helper()
	u, err := url.Parse(server.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(u.Hostname(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &store{host: l.Addr().String()}
	keep := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if limit := s.truncate.Load(); limit > 0 && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			first := int64(0) // whoever goes on where it broke off gets no further
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
			w = &shortWriter{w, max(0, limit-first)}
		}
		keep.ServeHTTP(w, r)
	})}
	go func() { _ = h.Serve(l) }() // ends with the test
	t.Cleanup(func() { _ = h.Close() })
	return s
}

// shortWriter breaks off after some bytes of a body.
type shortWriter struct {
	http.ResponseWriter
	left int64
}

func (w *shortWriter) Write(p []byte) (int, error) {
	if w.left < int64(len(p)) {
		_, _ = w.ResponseWriter.Write(p[:w.left])
		panic(http.ErrAbortHandler)
	}
	w.left -= int64(len(p))
	return w.ResponseWriter.Write(p)
}

// push stores an image and returns what a commit calls it.
func (s *store) push(t *testing.T, dir, digest string) string {
	t.Helper()
	reference, err := name.NewDigest(s.host+"/bothy/os@"+digest, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	image, err := path.Image(hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, image); err != nil {
		t.Fatal(err)
	}
	return reference.String()
}
