package appliance

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/vm/qemu"
)

// A machine whose line is down gets a commit, and the images that it needs, from a stick. Nobody types anything.
func TestABundleOnAStick(t *testing.T) {
	long(t)
	s := newSite(t)
	s.disk.File = s.bench.disk(t)
	m := s.boot(t, ordinary, s.disk, s.seedWith(t, "seed", ""))
	s.awaitWorkload(t, m)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}

	s.repo.Replace(t, "apps/hello/deployment.yaml", "Hello from a signed commit", "Hello from a stick")
	commit := s.repo.Push(t, "Say where it comes from", cluster.Signed)
	bundle, stick := filepath.Join(s.dir, "site.tar"), filepath.Join(s.dir, "stick.img")
	t.Log(s.run(t, s.paths.Bothy(), "bundle", s.repo.Bare, "--site", s.repo.Path, "--images", s.paths.Images, "--to", bundle))
	s.run(t, s.paths.Bothy(), "os", "seed", "--include", "bundles/site.tar="+bundle, stick)

	m = s.powerOn(t, ordinary, s.disk, qemu.Disk{Serial: "stick", File: stick, ReadOnly: true})
	s.qmp(t, `{"execute": "set_link", "arguments": {"name": "net", "up": false}}`)
	m.awaitPicture(t)
	m.await(t, m.patience(), regexp.MustCompile(`bundles +taken in: \d+ images`))
	m.await(t, m.patience(), regexp.MustCompile(`commit +`+commit[:12]+` Say where it comes from`))
	m.await(t, m.patience(), regexp.MustCompile(`state +ready[^,]*\n(.*\n)*? +answers +http://10\.0\.2\.15:30080`))
	s.qmp(t, `{"execute": "set_link", "arguments": {"name": "net", "up": true}}`)
	s.answersWith(t, m, "Hello from a stick")
}
