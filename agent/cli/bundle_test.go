package cli

import (
	"strings"
	"testing"
	"testing/fstest"

	osimage "github.com/bothy-os/bothy/os/image"
)

func TestTheOperatingSystemOfASite(t *testing.T) {
	const image = "registry.example.org/bothy/os@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
	site := func(spec string) fstest.MapFS {
		return fstest.MapFS{"clusters/a/cluster.yaml": {Data: []byte("apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata: {name: a}\nspec: " + spec + "\n")}}
	}
	for what, c := range map[string]struct {
		files   fstest.MapFS
		without bool
		want    string
		failure string
	}{
		"named":          {files: site("{os: {image: " + image + ", registry: {mirrors: [\"https://mirror.example.org\"]}}}"), want: image},
		"left out":       {files: site("{os: {image: " + image + "}}"), without: true},
		"not named":      {files: site("{}")},
		"no settings":    {files: fstest.MapFS{}},
		"not understood": {files: site("{os: {image: latest}}"), failure: "clusters/a/cluster.yaml"},
	} {
		f := bundleFlags{site: "clusters/a", noOS: c.without}
		got, err := f.operatingSystem(c.files)
		switch {
		case c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)):
			t.Errorf("%s: %v", what, err)
		case c.failure == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %+v", what, got)
		case c.want != "" && (len(got) != 1 || got[0].Reference != c.want || got[0].Type != string(osimage.MediaTypeConfig) || len(got[0].Sources) != 1):
			t.Errorf("%s: %+v", what, got)
		}
	}
}
