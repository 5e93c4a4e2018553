package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/images/bundle"
	"github.com/bothy-os/bothy/images/layout"
	"github.com/bothy-os/bothy/images/needs"
	"github.com/bothy-os/bothy/images/registry"
	"github.com/bothy-os/bothy/images/store"
	"github.com/bothy-os/bothy/node"
	osimage "github.com/bothy-os/bothy/os/image"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/repository"
)

type bundleFlags struct {
	to, site, branch, credentials, base string
	layouts, images, platforms          []string
	incomplete, noGit, noOS             bool
	from                                registryFlags
}

// registryFlags say how registries are reached.
type registryFlags struct {
	credentials                 string
	mirrors, authorities, plain []string
	rate                        int64
}

func newBundle(o *options) *cobra.Command {
	f := &bundleFlags{}
	cmd := &cobra.Command{
		Use:     "bundle REPO",
		Short:   "Put everything that a site needs into one file: repository, images, operating system, signatures",
		GroupID: "repo",
		Long: `Make a bundle: an OCI image layout, in one tar file or a directory, with the
commits of a repository, every image that the site in it uses, the operating system
that its Cluster names, and the signatures and attestations of those. A machine without a network starts from it (bothy up
--bundle) or takes it in while it runs (bothy image import).

REPO is a work tree, a bare repository, or a URL; what counts is the newest commit
of the branch, not files that are not committed. It is built as a site builds it,
Flux Kustomizations included. Images of objects whose controllers make pods, such
as Helm releases, are named in the annotation ` + needs.Annotation + ` on those objects, or
with --image.

Images come from directories (--images), then from registries, with the credentials
of the docker configuration. The operating system comes from a directory that
has its digest, whatever it is called there (--images build/os/bothy-vm.oci), or from its registry,
with the mirrors and certificates in spec.os.registry after those given here. The same images and commit give the same bytes. What is
interrupted goes on where it was when the command is run again. With --base only the
layers and commits are taken that an earlier bundle lacks.`,
		Example: `  bothy bundle . --to site.tar
  bothy bundle https://git.example.org/site.git --site clusters/berlin --platform linux/arm64 --to /media/usb/berlin.tar
  bothy bundle . --base site.tar --to update.tar`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, o, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.to, "to", "", "`FILE.tar` or directory to write (default <site>-<commit>.tar)")
	fl.StringVar(&f.site, "site", "clusters/default", "`directory` of the site in the repository")
	fl.StringVar(&f.branch, "branch", "", "`branch` to read (default: the one that is checked out, else main)")
	fl.StringVar(&f.credentials, "credentials", "", "`file` with credentials for the repository")
	fl.StringVar(&f.base, "base", "", "`bundle` that the receiver has: take only what it lacks")
	fl.StringArrayVar(&f.layouts, "images", nil, "OCI layout `directory` to take images from before any registry (repeatable)")
	fl.StringArrayVar(&f.images, "image", nil, "`reference` of a further image (repeatable)")
	fl.StringSliceVar(&f.platforms, "platform", nil, "`platforms` to take of images for several (default linux/ and this machine's)")
	fl.BoolVar(&f.noGit, "no-repository", false, "leave the repository out")
	fl.BoolVar(&f.noOS, "no-os", false, "leave the operating system out")
	fl.BoolVar(&f.incomplete, "incomplete", false, "make a bundle although not all images of the site are known")
	f.from.add(cmd)
	return cmd
}

func (r *registryFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&r.credentials, "registry-credentials", "", "`file` like docker's config.json (default: the docker configuration of the user)")
	fl.StringArrayVar(&r.mirrors, "mirror", nil, "`REGISTRY=URL` to ask before a registry (repeatable, in order)")
	fl.StringArrayVar(&r.authorities, "registry-ca", nil, "`REGISTRY=FILE` of PEM certificates that vouch for a registry and its mirrors")
	fl.StringArrayVar(&r.plain, "plain-http", nil, "`registry` to speak to without TLS")
	fl.Int64Var(&r.rate, "rate", 0, "most `KiB` per second to read from registries (0: no limit)")
}

// client reaches registries; more, if not nil, adds settings to those of the flags.
func (r *registryFlags) client(more func(map[string]registry.Registry)) (*registry.Client, error) {
	all := map[string]registry.Registry{}
	if err := errors.Join(registry.ParseMirrors(all, r.mirrors), registry.ParseCAs(all, r.authorities)); err != nil {
		return nil, err
	}
	for _, host := range r.plain {
		settings := all[host]
		settings.PlainHTTP = true
		all[host] = settings
	}
	if more != nil {
		more(all)
	}
	cfg := registry.Config{Registries: all, BytesPerSecond: r.rate << 10}
	if r.credentials != "" {
		var err error
		if cfg.Keychain, err = registry.CredentialsFile(r.credentials); err != nil {
			return nil, err
		}
	}
	return registry.New(cfg), nil
}

func (f *bundleFlags) run(cmd *cobra.Command, o *options, repo string) error {
	ctx := cmd.Context()
	checkout, err := repository.Open(ctx, repository.CheckoutOptions{Repository: repo, Branch: f.branch, CredentialsFile: f.credentials})
	if err != nil {
		return err
	}
	defer checkout.Close()
	opts, err := f.options(ctx, cmd.ErrOrStderr(), checkout)
	if err != nil {
		return err
	}
	meter := newMeter(os.Stderr)
	opts.Progress = func(p bundle.Progress) {
		meter.show(p.Read, fmt.Sprintf("image %d of %d  %s", p.Number, p.Images, p.Image))
	}
	list, err := bundle.Create(ctx, *opts)
	meter.end()
	if err != nil {
		return err
	}
	if o.json() {
		return printJSON(cmd.OutOrStdout(), struct {
			File string `json:"file"`
			*bundle.Listing
		}{opts.To, list})
	}
	fmt.Fprintln(cmd.OutOrStdout(), opts.To)
	return printListing(cmd.OutOrStdout(), list)
}

// options finds out what belongs into the bundle.
func (f *bundleFlags) options(ctx context.Context, notes io.Writer, checkout *repository.Checkout) (*bundle.Options, error) {
	opts := &bundle.Options{To: f.to, Site: f.site}
	if opts.To == "" {
		opts.To = fmt.Sprintf("%s-%s.tar", path.Base(f.site), short(checkout.Commit))
	}
	var err error
	if opts.Platforms, err = bundle.ParsePlatforms(f.platforms); err != nil {
		return nil, fmt.Errorf("--platform: %w", err)
	}
	if opts.Images, err = f.references(ctx, notes, checkout); err != nil {
		return nil, err
	}
	if opts.Sources, err = f.sources(bundle.Layout, nil); err != nil {
		return nil, err
	}
	if opts.Artifacts, err = f.operatingSystem(checkout.Files); err != nil {
		return nil, err
	}
	var without []string
	if f.base != "" {
		if opts.Base, err = bundle.OpenBase(ctx, f.base); err != nil {
			return nil, fmt.Errorf("--base: %w", err)
		}
		if opts.Base.Commit != "" {
			without = append(without, opts.Base.Commit)
		}
	}
	if !f.noGit {
		if slices.Contains(without, checkout.Commit) {
			without = nil // a bundle of no commits is none
		}
		opts.Git = &bundle.Git{Commit: checkout.Commit, Write: func(ctx context.Context, w *bytes.Buffer) error {
			return checkout.Bundle(ctx, w, without...)
		}}
	}
	return opts, nil
}

// references are the images of the site and those that the flags name.
func (f *bundleFlags) references(ctx context.Context, notes io.Writer, checkout *repository.Checkout) ([]string, error) {
	if st, err := fs.Stat(checkout.Files, f.site); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("commit %s has no directory %s; name the site's with --site", short(checkout.Commit), f.site)
	}
	found, err := siteImages(ctx, checkout.Files, f.site)
	if err != nil {
		return nil, err
	}
	for _, p := range found.Problems {
		fmt.Fprintf(notes, "bothy: %s\n", p)
	}
	if len(found.Problems) > 0 && !f.incomplete {
		return nil, errors.New("not all images of the site are known; name them as said above or with --image, and give --incomplete to leave it at that")
	}
	all := found.References
	for _, text := range append(f.images, f.sandbox()...) {
		full, err := needs.Normalize(text)
		if err != nil {
			return nil, fmt.Errorf("--image %s: %w", text, err)
		}
		all = append(all, full)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// sandbox is the image that every pod needs, if a directory has it: then the
// bundle is all that a bare node needs. No registry has it.
func (f *bundleFlags) sandbox() []string {
	for _, dir := range f.layouts {
		l, err := layout.Open(dir)
		if err != nil {
			continue // said when the directory is used
		}
		for _, img := range l.Images {
			if img.Name == node.SandboxImage {
				return []string{img.Name}
			}
		}
	}
	return nil
}

// siteImages finds the images of the site in a directory of files.
func siteImages(ctx context.Context, files fs.FS, site string) (needs.Images, error) {
	r, err := reconciler.Render(ctx, files, site)
	if err != nil {
		return needs.Images{}, err
	}
	found := needs.Of(r.Objects)
	found.Problems = append(found.Problems, r.Problems...)
	return found, nil
}

// operatingSystem is what the Cluster of the site names, if it does.
func (f *bundleFlags) operatingSystem(files fs.FS) ([]bundle.Artifact, error) {
	if f.noOS {
		return nil, nil
	}
	name := path.Join(f.site, "cluster.yaml")
	data, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cluster, err := v1alpha1.DecodeCluster(name, data)
	if err != nil || cluster.Spec.OS.Image == "" {
		return nil, err
	}
	spec := cluster.Spec.OS
	sources, err := f.sources(bundle.LayoutByDigest, func(all map[string]registry.Registry) { agent.OSRegistry(all, spec) })
	return []bundle.Artifact{{Reference: spec.Image, Type: string(osimage.MediaTypeConfig), Sources: sources}}, err
}

// sources are the directories, each as directory says, and registries.
func (f *bundleFlags) sources(directory func(*layout.Layout) bundle.Source, registries func(map[string]registry.Registry)) ([]bundle.Source, error) {
	var out []bundle.Source
	for _, dir := range f.layouts {
		l, err := layout.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("--images: %w", err)
		}
		out = append(out, directory(l))
	}
	client, err := f.from.client(registries)
	return append(out, client), err
}

func printListing(w io.Writer, list *bundle.Listing) error {
	rows := [][]string{{"IMAGE", "KIND", "DIGEST", "SIZE", "HERE", "ATTACHED", "PROBLEM"}}
	total := fmt.Sprintf("%d images", len(list.Images))
	for _, i := range slices.Concat(list.Images, list.Artifacts) {
		rows = append(rows, []string{i.Name, kind(i.Type), i.Digest[:min(19, len(i.Digest))], mebibytes(i.Size), mebibytes(i.Carried), fmt.Sprint(i.Attached), i.Problem})
	}
	for _, a := range list.Artifacts {
		total += ", " + kind(a.Type)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	total += ", " + mebibytes(list.Size)
	if list.Commit != "" {
		total += fmt.Sprintf(", commit %s of %s", short(list.Commit), list.Site)
	}
	if list.Base != "" {
		total += fmt.Sprintf(", on top of commit %s", short(list.BaseCommit))
	}
	_, err := fmt.Fprintln(w, total)
	return err
}

// kind is what people call what has an artifact type, or none.
func kind(artifactType string) string {
	switch artifactType {
	case "":
		return "image"
	case string(osimage.MediaTypeConfig):
		return "operating system"
	}
	return artifactType
}

// meter shows how many bytes came in: one line that is redrawn on a terminal,
// nothing elsewhere.
type meter struct {
	out     *os.File
	started time.Time
	last    time.Time
}

func newMeter(out *os.File) *meter { return &meter{out: out, started: time.Now()} }

func (m *meter) show(read int64, what string) {
	const often = 200 * time.Millisecond
	if now := time.Now(); isTerminal(m.out) && now.Sub(m.last) > often {
		m.last = now
		rate := float64(read) / (1 << 20) / now.Sub(m.started).Seconds()
		fmt.Fprintf(m.out, "\r\x1b[K%s  %.1f MiB/s  %s", mebibytes(read), rate, what)
	}
}

func (m *meter) end() {
	if !m.last.IsZero() {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

// storeOf is the store of images of the node on a state directory.
func storeOf(state string) *store.Store {
	return store.New(filepath.Join(state, "images"), filepath.Join(state, contentDir))
}

// contentDir is where containerd has its blobs, below the state directory.
const contentDir = "containerd/io.containerd.content.v1.content"
