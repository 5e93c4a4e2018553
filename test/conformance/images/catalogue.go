package images

import (
	"context"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Image is one image of the suite.
type Image struct {
	// Name is the full reference that the suite uses.
	Name string
	// Change says how it differs from the upstream image.
	Change string

	layers     []v1.Layer
	entrypoint []string
	cmd        []string
	user       string
}

// Registries of the upstream images.
const (
	suiteRegistry   = "registry.k8s.io/e2e-test-images/"
	releaseRegistry = "registry.k8s.io/"
)

// pauseTag is the release of the pause image, and what agnhost's registry
// serves as pause:testing.
const pauseTag = "3.10.2"

// catalogue makes all images. Layers are shared, as upstream's are.
func (b *builder) catalogue(ctx context.Context) ([]Image, error) {
	pause, err := b.pause(ctx)
	if err != nil {
		return nil, err
	}
	out := []Image{pause}
	for _, add := range []func(context.Context) ([]Image, error){
		func(ctx context.Context) ([]Image, error) { return b.agnhost(ctx, pause) },
		b.debian, b.nginx, b.programs,
	} {
		more, err := add(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// agnhost is the suite's main image, with two that stand on it.
func (b *builder) agnhost(ctx context.Context, pause Image) ([]Image, error) {
	// Busybox's own wget, linked statically, crashes where it finds a C library of another build.
	tools, err := b.debianTree(ctx, "bind9-dnsutils", "curl", "netcat-openbsd", "iproute2", "iperf", "bash", "socat", "libc-bin", "util-linux", "wget")
	if err != nil {
		return nil, err
	}
	tools.text("etc/wgetrc", "tries = 1\n") // as busybox's: specs wait for it to give up
	tools.symlink("bin/nc", "nc.openbsd")
	tools.symlink("usr/local/bin/iperf", "/usr/bin/iperf")
	system, err := tools.layer()
	if err != nil {
		return nil, err
	}
	own, err := b.agnhostFiles(pause)
	if err != nil {
		return nil, err
	}
	program, err := own.layer()
	if err != nil {
		return nil, err
	}
	const change = "tools from Debian packages and busybox instead of Alpine 3.21; CoreDNS 1.15.0 instead of 1.6.2"
	agnhost := Image{
		Name: suiteRegistry + "agnhost:2.66.1", Change: change,
		layers: []v1.Layer{system, program}, entrypoint: []string{"/agnhost"}, cmd: []string{"pause"},
	}
	previous := agnhost
	previous.Name = suiteRegistry + "agnhost:2.55"
	previous.Change += "; the program is 2.66.1, for the suite wants an image of another name and digest only"
	out := []Image{agnhost, previous}
	for _, name := range []string{"kitten", "nautilus"} {
		derived := agnhost
		derived.Name, derived.Change = suiteRegistry+name+":1.8", "stands on the agnhost image above"
		derived.cmd = []string{"test-webserver"}
		html := tree{}
		for _, file := range []string{name + ".jpg", "data.json"} {
			if err := html.copy(file, 0o644, filepath.Join(b.Sources, "test/images", name, "html", file)); err != nil {
				return nil, err
			}
		}
		top, err := html.layer()
		if err != nil {
			return nil, err
		}
		derived.layers = append(derived.layers[:2:2], top)
		out = append(out, derived)
	}
	return out, nil
}

func (b *builder) agnhostFiles(pause Image) (tree, error) {
	image, err := assemble(pause)
	if err != nil {
		return nil, err
	}
	t, err := served("pause", "testing", image)
	if err != nil {
		return nil, err
	}
	t.dir("uploads", 0o755)
	t.symlink("agnhost-2", "agnhost")
	for _, program := range []string{"agnhost", "coredns"} {
		if err := t.copy(program, 0o755, filepath.Join(b.Programs, program)); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{"localhost.crt", "localhost.key"} {
		if err := t.copy(file, 0o644, filepath.Join(b.Sources, "test/images/agnhost/porter", file)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// debian are the images that are a distribution and little else.
func (b *builder) debian(ctx context.Context) ([]Image, error) {
	var out []Image
	for _, d := range []struct {
		name, change, user string
		cmd                []string
		packages           []string
	}{
		{name: "busybox:1.37.0-2", change: "linked statically, and without tc", cmd: []string{"sh"}},
		{
			name: "glibc-dns-testing:2.1.1", change: "no CoreDNS; busybox instead of coreutils", cmd: []string{"bash"},
			packages: []string{"dash", "bash", "bind9-dnsutils", "libc-bin"},
		},
		{name: "nonroot:1.5", change: "busybox instead of Debian's coreutils", user: "1234", cmd: []string{"sh"}},
		{name: "ipc-utils:1.4", change: "Debian's util-linux instead of Alpine's", cmd: []string{"sh"}, packages: []string{"util-linux"}},
	} {
		t, err := b.debianTree(ctx, d.packages...)
		if err != nil {
			return nil, err
		}
		layer, err := t.layer()
		if err != nil {
			return nil, err
		}
		out = append(out, Image{Name: suiteRegistry + d.name, Change: d.change, layers: []v1.Layer{layer}, cmd: d.cmd, user: d.user})
	}
	return out, nil
}

// nginx is one server under two names: the suite updates from one to the other.
func (b *builder) nginx(ctx context.Context) ([]Image, error) {
	t, err := b.debianTree(ctx, "nginx-light")
	if err != nil {
		return nil, err
	}
	t.dir("var/lib/nginx", 0o755)
	t.dir("var/log/nginx", 0o755)
	t.text("etc/nginx/nginx.conf", `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
	include mime.types;
	access_log /dev/stdout;
	server {
		listen 80;
		listen [::]:80;
		root /usr/share/nginx/html;
		index index.html;
	}
}
`)
	layer, err := t.layer()
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, tag := range []string{"1.27.0-2", "1.28.0-2"} {
		out = append(out, Image{
			Name: suiteRegistry + "nginx:" + tag, Change: "Debian's nginx-light 1.22.1 instead of Docker's library",
			layers: []v1.Layer{layer}, cmd: []string{"nginx", "-g", "daemon off;"},
		})
	}
	return out, nil
}

// programs are images of one program, compiled from source and linked with the
// C library of the packages.
func (b *builder) programs(ctx context.Context) ([]Image, error) {
	shell, err := b.debianTree(ctx, "libc6")
	if err != nil {
		return nil, err
	}
	system, err := shell.layer()
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, p := range []struct {
		name, program, path, change string
		mode                        int64
		entrypoint, cmd             []string
	}{
		{
			name: suiteRegistry + "nonewprivs:1.4", program: "nnp", path: "usr/local/bin/nnp", mode: 0o4755,
			cmd: []string{"nnp"}, change: "busybox instead of Alpine",
		},
		{
			name: suiteRegistry + "regression-issue-74839:1.5", program: "regression-issue-74839", path: "regression-issue-74839",
			mode: 0o755, entrypoint: []string{"/regression-issue-74839"}, change: "busybox instead of Debian",
		},
		{
			name: suiteRegistry + "sample-apiserver:1.29.2", program: "sample-apiserver", path: "sample-apiserver",
			mode: 0o755, entrypoint: []string{"/sample-apiserver"}, change: "k8s.io/sample-apiserver v0.29.2; busybox instead of Alpine",
		},
		{
			name: releaseRegistry + "etcd:3.7.0-0", program: "etcd", path: "usr/local/bin/etcd",
			mode: 0o755, cmd: []string{"etcd"}, change: "3.7.3; the server alone, without etcdctl and the migration scripts",
		},
	} {
		t := tree{}
		if err := t.copy(p.path, p.mode, filepath.Join(b.Programs, p.program)); err != nil {
			return nil, err
		}
		layer, err := t.layer()
		if err != nil {
			return nil, err
		}
		out = append(out, Image{Name: p.name, Change: p.change, layers: []v1.Layer{system, layer}, entrypoint: p.entrypoint, cmd: p.cmd})
	}
	return out, nil
}

// debianTree is the packages, the base files, and busybox for all that the packages do not have.
func (b *builder) debianTree(ctx context.Context, names ...string) (tree, error) {
	t := tree{}
	if len(names) > 0 {
		var err error
		if t, err = (packages{b.Packages}).tree(ctx, names...); err != nil {
			return nil, err
		}
	}
	t, err := withBusybox(ctx, t, filepath.Join(b.Programs, "busybox"))
	if err != nil {
		return nil, err
	}
	return t.over(base()), nil
}
