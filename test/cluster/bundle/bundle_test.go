package bundle

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/bothy-os/bothy/test/cluster"
)

const deployment = "apps/hello/deployment.yaml"

func TestASiteWithoutANetwork(t *testing.T) {
	repo := cluster.RepoFrom(t, filepath.Join(cluster.Require(t).Root, "examples", "repo"), false)
	depot := &cluster.Node{Paths: cluster.Require(t), State: t.TempDir()} // only its commands are used
	first, size := pack(t, depot, repo, "one.tar", "--image", toolbox)
	if again, _ := pack(t, depot, repo, "again.tar", "--image", toolbox); sum(t, first) != sum(t, again) {
		t.Error("two bundles of the same commit differ")
	}
	s := newSite(t, repo, first)
	if err := s.says(t.Context(), "Hello from a signed commit"); err != nil {
		t.Error(err)
	}
	s.has(t, hello+" "+sandbox+" "+toolbox, "")

	t.Run("an image that is removed by force comes back", func(t *testing.T) {
		for range 2 {
			before := digests(t, s)
			if _, err := s.images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: toolbox}}); err != nil {
				t.Fatal(err)
			}
			s.has(t, hello+" "+sandbox+" "+toolbox, "")
			if after := digests(t, s); after != before {
				t.Errorf("images %s came back as %s", before, after)
			}
		}
	})

	update := func(t *testing.T, name, base, was, is string) string {
		t.Helper()
		repo.Replace(t, deployment, was, is)
		commit := repo.Push(t, is, cluster.Signed)
		file, less := pack(t, depot, repo, name, "--base", base)
		if less > size/10 {
			t.Errorf("an update of one line takes %d bytes, the whole %d", less, size)
		}
		s.node.Run(t, "image", "import", file)
		cluster.Eventually(t, patience, "commit "+commit[:12]+" to be live", func() error {
			st, err := s.node.ReadStatus(t.Context())
			if err == nil && (st.Git.Applied == nil || st.Git.Applied.Commit != commit) {
				err = fmt.Errorf("applied is %+v, refused %+v", st.Git.Applied, st.Git.Rejected)
			}
			return err
		})
		cluster.Eventually(t, patience, "the new answer", func() error { return s.says(t.Context(), is) })
		return file
	}
	t.Run("updates carry the difference, and what two commits need stays", func(t *testing.T) {
		second := update(t, "two.tar", first, "Hello from a signed commit", "Hello from a stick")
		s.has(t, hello+" "+sandbox+" "+toolbox, "")
		update(t, "three.tar", second, "Hello from a stick", "Hello again")
		s.has(t, hello+" "+sandbox, toolbox)
	})

	t.Run("under disk pressure only what nobody needs goes", func(t *testing.T) {
		s.resize(t, "200m") // less than the kubelet wants free on any disk
		// It spares what it has not known for two minutes.
		s.hasWithin(t, 3*time.Minute, hello+" "+sandbox, "")
		if out := s.node.Run(t, "image", "ls"); !strings.Contains(out, hello) || strings.Contains(out, toolbox) {
			t.Errorf("bothy image ls:\n%s", out)
		}
		s.resize(t, "8g")
	})
}

// digests are the identities of all images.
func digests(t *testing.T, s *site) string {
	t.Helper()
	list, err := s.images.ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, i := range list.Images {
		for _, tag := range i.RepoTags {
			byName[tag] = i.Id
		}
	}
	return fmt.Sprint(byName)
}
