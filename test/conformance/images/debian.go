package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// packages fetches Debian packages and unpacks them. No maintainer script runs:
// what those would have made, and a container needs, is in base.
type packages struct {
	// cache keeps the downloaded packages between builds.
	cache string
}

// tree is the files of the named packages and of all they depend on.
func (p packages) tree(ctx context.Context, names ...string) (tree, error) {
	files, err := p.fetch(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("fetch the Debian packages %s: %w", strings.Join(names, ", "), err)
	}
	out := tree{}
	for _, file := range files {
		archive, err := run(ctx, "", "dpkg-deb", "--fsys-tarfile", file)
		if err != nil {
			return nil, err
		}
		if err := out.unpack(bytes.NewReader(archive), wanted); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", file, err)
		}
	}
	return out, nil
}

// fetch resolves the dependencies as on a machine with nothing installed, and
// returns the package files.
func (p packages) fetch(ctx context.Context, names []string) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(p.cache, "partial"), 0o755); err != nil {
		return nil, err
	}
	args := append([]string{
		"-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache::archives=" + p.cache,
		"-o", "APT::Sandbox::User=root", "--no-install-recommends", "--yes", "-qq",
	}, "install")
	args = append(args, names...)
	if _, err := run(ctx, "", "apt-get", append([]string{"--download-only"}, args...)...); err != nil {
		return nil, fmt.Errorf("%w (`apt-get update` refreshes the lists of packages)", err)
	}
	// Once everything is in the cache, apt names the packages and not where to
	// get them.
	plan, err := run(ctx, "", "apt-get", append([]string{"--simulate"}, args...)...)
	if err != nil {
		return nil, err
	}
	var files []string
	for line := range strings.Lines(string(plan)) {
		// Inst curl (7.88.1-10 Debian:12/stable [amd64]) []
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		version := strings.ReplaceAll(strings.TrimPrefix(f[2], "("), ":", "%3a")
		found, err := filepath.Glob(filepath.Join(p.cache, f[1]+"_"+version+"_*.deb"))
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("package %s %s is not in %s", f[1], version, p.cache)
		}
		files = append(files, found[0])
	}
	if len(files) == 0 {
		return nil, errors.New("apt-get found nothing to install")
	}
	return files, nil
}

// wanted leaves out what nobody reads in a container.
func wanted(name string) bool {
	for _, dir := range []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	return true
}

// withBusybox adds busybox, and a link to it for every applet that the tree has no program for.
func withBusybox(ctx context.Context, t tree, program string) (tree, error) {
	list, err := run(ctx, "", program, "--list")
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for name := range t {
		switch path.Dir(name) {
		case "bin", "sbin", "usr/bin", "usr/sbin":
			has[path.Base(name)] = true
		}
	}
	out := t.over(nil)
	if err := out.copy("bin/busybox", 0o755, program); err != nil {
		return nil, err
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" && !has[applet] {
			out.symlink("bin/"+applet, "/bin/busybox")
		}
	}
	return out, nil
}

// base is what every image with more than one program has: accounts, name
// service configuration, a place for temporary files.
func base() tree {
	t := tree{}
	t.text("etc/passwd", `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
`)
	t.text("etc/group", `root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
user-defined-in-image:x:1000:
group-defined-in-image:x:50000:user-defined-in-image
nogroup:x:65534:
`)
	t.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n")
	t.dir("root", 0o700)
	t.dir("home/user-defined-in-image", 0o755)
	t.dir("run", 0o755)
	t.dir("tmp", 0o1777)
	t.dir("var/tmp", 0o1777)
	return t
}

// run runs a command in a directory and returns its standard output.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
