// Package bundle shows a site without a network: a node starts from one file,
// takes in the next from another, and does not lose an image that its commits
// need, whoever removes it.
package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bothy-os/bothy/test/cluster"
)

const patience = 90 * time.Second

// Names of the images in the example, for every pod, and of what nobody runs.
const (
	hello   = "bothy.local/hello:1"
	sandbox = "bothy.local/pause:1"
	toolbox = "bothy.local/toolbox:1"
)

// site is a node that never sees a network, and the repository that is carried
// to it.
type site struct {
	repo   *cluster.Repo
	node   *cluster.Node
	url    string
	images cri.ImageServiceClient
	disk   string
}

// newSite starts a node from a bundle and nothing else. Its containerd is on a
// file system of its own, which can become small.
func newSite(t *testing.T, repo *cluster.Repo, file string) *site {
	t.Helper()
	s := &site{repo: repo, node: cluster.NodeFor(t, nil)}
	s.mountDisk(t)
	r := s.node.Try(t, "up", "--name", s.node.Name, "--isolated", "--bundle", file, "--path", repo.Path, "--trust-root", repo.TrustRoot(), "-o", "json")
	if r.Code != 0 {
		t.Fatalf("bothy up: exit code %d: %s", r.Code, r.Stderr)
	}
	up := &cluster.UpResult{}
	if err := json.Unmarshal([]byte(r.Stdout), up); err != nil {
		t.Fatal(err)
	}
	t.Logf("the node serves %.2f s after it was started from %s", up.Took, filepath.Base(file))
	if up.Commit != repo.Head(t) || len(up.URLs) != 1 {
		t.Fatalf("it runs commit %s at %v", up.Commit, up.URLs)
	}
	s.url = up.URLs[0]
	socket, err := s.node.Path("/run/bothy/containerd.sock")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.images = cri.NewImageServiceClient(conn)
	return s
}

// mountDisk gives containerd a file system of its own.
func (s *site) mountDisk(t *testing.T) {
	t.Helper()
	s.disk = filepath.Join(s.node.State, "containerd")
	if err := os.MkdirAll(s.disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.disk, "tmpfs", unix.MS_NODEV, "size=8g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.node.Stop(context.WithoutCancel(t.Context()), false); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(s.disk, 0); err != nil {
			t.Error(err)
		}
	})
}

func (s *site) resize(t *testing.T, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", s.disk, "tmpfs", unix.MS_REMOUNT|unix.MS_NODEV, "size="+size); err != nil {
		t.Fatal(err)
	}
}

// says asks the example workload.
func (s *site) says(ctx context.Context, want string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), want) {
		err = fmt.Errorf("it says %q", body)
	}
	return err
}

// kept lists the names of images that the kubelet must not remove, loose those
// that it may, as the kubelet itself sees them.
func (s *site) kept(ctx context.Context) (pinned, loose []string, err error) {
	list, err := s.images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return nil, nil, err
	}
	for _, i := range list.Images {
		if i.Pinned {
			pinned = append(pinned, i.RepoTags...)
		} else {
			loose = append(loose, i.RepoTags...)
		}
	}
	slices.Sort(pinned)
	slices.Sort(loose)
	return pinned, loose, nil
}

// has waits until the kubelet sees these images, pinned and loose.
func (s *site) has(t *testing.T, pinned, loose string) {
	t.Helper()
	s.hasWithin(t, patience, pinned, loose)
}

func (s *site) hasWithin(t *testing.T, within time.Duration, pinned, loose string) {
	t.Helper()
	cluster.Eventually(t, within, fmt.Sprintf("images %q to be pinned and %q not", pinned, loose), func() error {
		p, l, err := s.kept(t.Context())
		if err == nil && (strings.Join(p, " ") != pinned || strings.Join(l, " ") != loose) {
			err = fmt.Errorf("pinned are %q, others %q", p, l)
		}
		return err
	})
}

// pack makes a bundle of what the work tree has committed.
func pack(t *testing.T, n *cluster.Node, repo *cluster.Repo, name string, more ...string) (file string, size int64) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	n.Run(t, append([]string{"bundle", repo.Dir, "--to", file, "--images", n.Paths.Images, "--images", n.Paths.TestImages}, more...)...)
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, st.Size()
}

func sum(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}
