package appliance

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/cluster/gitserver"
	"github.com/bothy-os/bothy/test/vm/qemu"
)

// site is a repository, where machines find it, and the disk of one.
type site struct {
	*bench
	repo   *cluster.Repo
	server *gitserver.Server
	disk   qemu.Disk
}

// newSite is a site whose machine has a blank disk.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{bench: newBench(t)}
	if _, err := os.Stat(s.image + ".iso"); err != nil {
		t.Fatalf("%v: run `make image`", err)
	}
	s.repo = cluster.RepoFrom(t, filepath.Join(s.paths.Root, "examples", "repo"), false)
	var err error
	if s.server, err = gitserver.Start(filepath.Dir(s.repo.Bare)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.server.Close(); err != nil {
			t.Error(err)
		}
	})
	s.disk = qemu.Disk{Serial: "target", File: filepath.Join(s.dir, "target.raw")}
	if err := os.WriteFile(s.disk.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.disk.File, diskGiB<<30); err != nil {
		t.Fatal(err)
	}
	return s
}

// seedWith is a seed volume whose configuration says more.
func (s *site) seedWith(t *testing.T, name, more string) qemu.Disk {
	t.Helper()
	s.seed(t, s.repo, s.server) // leaves configuration and credentials
	config, err := os.ReadFile(filepath.Join(s.dir, "boot.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file, seed := filepath.Join(s.dir, name+".yaml"), filepath.Join(s.dir, name+".img")
	if err := os.WriteFile(file, append(config, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(t, s.paths.Bothy(), "os", "seed", "--config", file, "--include", "images="+s.paths.Images,
		"--include", "credentials.yaml="+filepath.Join(s.dir, "credentials.yaml"), seed)
	return qemu.Disk{Serial: "seed", File: seed, ReadOnly: true}
}

// install starts a machine from the medium in its drive and waits until it has installed
// itself.
func (s *site) install(t *testing.T) {
	t.Helper()
	args := s.args
	s.args = append(args, "-drive", "if=none,id=medium,media=cdrom,readonly=on,format=raw,file="+s.image+".iso", "-device", "ide-cd,drive=medium")
	m := s.boot(t, ordinary, s.disk, s.seedWith(t, "install", "install: {disk: {serial: target}}\n"))
	s.args = args
	m.awaitPicture(t)
	began := time.Now()
	m.await(t, m.patience(), regexp.MustCompile(`state +installing on /dev/vda \(8\.0 GiB, serial target\): \d+ %`))
	m.await(t, m.patience(), regexp.MustCompile(`state +installed on /dev/vda`))
	t.Logf("installed %.0f s after the first picture, %.0f s after power-on", time.Since(began).Seconds(), time.Since(m.started).Seconds())
	select {
	case <-m.Done(): // it starts again, which ends this QEMU
	case <-time.After(m.patience()):
		t.Fatal("the machine does not start again")
	}
}

// Somebody plugs a medium and a seed into a machine with a blank disk, and takes both out
// again when the machine is off: it comes up from its disk. Then its settings change, for
// better and for worse.
func TestAMachineInstallsItselfAndKeepsToItsSettings(t *testing.T) {
	long(t)
	s := newSite(t)
	s.install(t)
	archive := filepath.Join(s.dir, "archive.raw")
	if err := errors.Join(os.WriteFile(archive, nil, 0o600), os.Truncate(archive, 1<<30)); err != nil {
		t.Fatal(err)
	}
	disks := []qemu.Disk{s.disk, {Serial: "archive", File: archive}}
	m := s.boot(t, ordinary, disks...)
	s.awaitWorkload(t, m)
	if text := m.Console.String(); strings.Contains(text, "waiting for a boot configuration") {
		t.Error("the seed did not come along")
	}

	t.Run("good settings", func(t *testing.T) {
		commit := s.push(t, "Settings", `
    hostname: shelf
    sysctls: {vm.swappiness: "10", net.ipv4.tcp_keepalive_time: "300"}
    modules: [wireguard]
    disks: [{name: archive, serial: archive}]
    interfaces:
    - {name: eth0, vlan: 7, addresses: [192.0.2.7/24], routes: [{to: 198.51.100.0/24, via: 192.0.2.1}]}
`)
		m.await(t, m.patience(), regexp.MustCompile(`settings +those of commit `+commit+` are in force`))
	})
	t.Run("settings that cannot be", func(t *testing.T) {
		commit := s.push(t, "A mistake", `
    hostname: shelf
    sysctls: {vm.swapiness: "10"}
`)
		m.await(t, m.patience(), regexp.MustCompile(`settings +those of commit `+commit+` were undone: sysctls: vm\.swapiness: this kernel has no such setting`))
	})
	t.Run("settings that cost the uplink", func(t *testing.T) {
		commit := s.push(t, "Another network", `
    revertAfter: 1m
    interfaces:
    - {name: eth0, uplink: true, addresses: [192.0.2.99/24], gateway: 192.0.2.1}
`)
		m.await(t, m.patience(), regexp.MustCompile(`address +192\.0\.2\.99 on eth0`))
		m.await(t, m.patience(), regexp.MustCompile(`settings +those of commit `+commit+` were undone: the machine did not prove in time`))
		s.answers(t, m)
	})
	t.Run("a loss of power during a trial", func(t *testing.T) {
		commit := s.push(t, "One more network", `
    interfaces:
    - {name: eth0, uplink: true, addresses: [192.0.2.98/24], gateway: 192.0.2.1}
`)
		m.await(t, m.patience(), regexp.MustCompile(`settings +those of commit `+commit+` are on trial`))
		m.await(t, m.patience(), regexp.MustCompile(`address +192\.0\.2\.98 on eth0`))
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		m = s.boot(t, ordinary, disks...)
		m.awaitPicture(t)
		m.await(t, m.patience(), regexp.MustCompile(`address +10\.0\.2\.15 on eth0`))
		// Back to what works, before it is tried once more.
		commit = s.push(t, "As before", "\n    hostname: shelf\n    sysctls: {vm.swappiness: \"10\", net.ipv4.tcp_keepalive_time: \"300\"}\n    modules: [wireguard]\n")
		m.await(t, m.patience(), regexp.MustCompile(`commit +`+commit))
		s.awaitWorkload(t, m)
	})
}

// answers waits for the workload to be there, again.
func (s *site) answers(t *testing.T, m *machine) {
	t.Helper()
	s.answersWith(t, m, "Hello from a signed commit")
}

func (*site) answersWith(t *testing.T, m *machine, words string) {
	t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	cluster.Eventually(t, m.patience(), "the workload to answer", func() error {
		return get(client, fmt.Sprintf("http://127.0.0.1:%d/", workloadPort), words)
	})
}

// push commits settings of the machine, and returns how the console calls the commit.
func (s *site) push(t *testing.T, subject, system string) string {
	t.Helper()
	text := "apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: site}\nspec:\n  system:" + system
	s.repo.Write(t, s.repo.Path+"/machines/site.yaml", text)
	return s.repo.Push(t, subject, cluster.Signed)[:12]
}

// All that a machine has is lost, and comes back from its repository.
func TestAMachineBeginsAnew(t *testing.T) {
	long(t)
	s := newSite(t)
	s.install(t)
	m := s.boot(t, ordinary, s.disk, s.seedWith(t, "again", "reset: again\n"))
	m.awaitPicture(t)
	m.await(t, m.patience(), regexp.MustCompile(`state +forgetting everything`))
	select {
	case <-m.Done():
	case <-time.After(m.patience()):
		t.Fatal("the machine does not start again")
	}
	m = s.boot(t, ordinary, s.disk, s.seedWith(t, "again", "reset: again\n"))
	s.awaitWorkload(t, m)
	if strings.Contains(m.Console.String(), "forgetting everything") {
		t.Error("the machine forgets everything once more")
	}
	t.Logf("rebuilt from the repository alone %.0f s after power-on", time.Since(m.started).Seconds())
}
