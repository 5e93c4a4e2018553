package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bothy-os/bothy/images/build"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/node"
)

func allow(glob string) fstest.MapFS {
	return fstest.MapFS{policy.File: {Data: []byte("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"" + glob + "\"}]\n  authorities: [{static: {action: pass}}]\n")}}
}

// TestPolicyUnderWhichNothingStarts: a commit that would keep every pod from
// starting is refused before it is accepted.
func TestPolicyUnderWhichNothingStarts(t *testing.T) {
	dir, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "pause"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	results, err := build.Build(t.Context(), build.Options{LayoutDir: dir, Images: []build.Image{{Name: node.SandboxImage, Source: build.Source{RootFS: root}, Entrypoint: []string{"/pause"}}}})
	if err != nil {
		t.Fatal(err)
	}
	layouts := []string{filepath.Join(dir, "none"), dir}
	if err := checkImagePolicy(allow("example.org/**"), layouts); err == nil || !strings.Contains(err.Error(), "trust/images.yaml: no pod could start") {
		t.Errorf("%v", err)
	}
	for _, glob := range []string{"**", "bothy.local/pause@" + results[0].Digest} {
		if err := checkImagePolicy(allow(glob), layouts); err != nil {
			t.Errorf("%s: %v", glob, err)
		}
	}
	if err := checkImagePolicy(fstest.MapFS{}, layouts); err != nil {
		t.Errorf("without a policy: %v", err)
	}
	if err := checkImagePolicy(fstest.MapFS{policy.File: {Data: []byte("kind: [")}}, nil); err == nil || !strings.Contains(err.Error(), "trust/images.yaml:1") {
		t.Errorf("%v", err)
	}
}
