package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	bundleScheme = "bundle://"
	// maxBundleHead bounds the list of references of a bundle.
	maxBundleHead = 1 << 20
)

// bundlePath returns the file, or the pattern of files, that a bundle URL names.
func (r Remote) bundlePath() (string, bool) {
	if rest, ok := strings.CutPrefix(r.URL, bundleScheme); ok && filepath.IsAbs(rest) {
		return filepath.Clean(rest), true
	}
	if path, ok := r.localPath(); ok && strings.HasSuffix(path, ".bundle") {
		if st, err := os.Stat(path); err != nil || !st.IsDir() {
			return path, true
		}
	}
	return "", false
}

// IsBundle reports whether a URL names bundles: bundle:///path, or a path that
// ends in .bundle.
func IsBundle(address string) bool {
	_, ok := Remote{URL: address}.bundlePath()
	return ok
}

// Bundles returns the URLs of the bundle files that a bundle URL with * and ?
// in it, or one of a directory, names now; the newest file first. It is empty
// while the medium is not there.
func Bundles(address string) ([]string, error) {
	pattern, ok := Remote{URL: address}.bundlePath()
	if !ok {
		return nil, fmt.Errorf("%s does not name bundles", address)
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", pattern, err)
	}
	type file struct {
		name string
		info fs.FileInfo
	}
	var files []file
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			continue // the medium was pulled this moment
		}
		if !info.IsDir() {
			files = append(files, file{name, info})
			continue
		}
		inside, _ := filepath.Glob(filepath.Join(name, "*.bundle"))
		for _, name := range inside {
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
				files = append(files, file{name, info})
			}
		}
	}
	slices.SortStableFunc(files, func(a, b file) int { return b.info.ModTime().Compare(a.info.ModTime()) })
	var out []string
	for _, f := range files {
		out = append(out, bundleScheme+f.name)
	}
	return out, nil
}

// BundleDirs returns the directories in which a file that a bundle URL names
// can appear, as far as they exist now: for a pattern also those in which
// directories on the way can appear.
func BundleDirs(address string) []string {
	pattern, ok := Remote{URL: address}.bundlePath()
	if !ok {
		return nil
	}
	var out []string
	for at := pattern; at != "/"; {
		if at != pattern || !strings.HasSuffix(at, ".bundle") {
			names, _ := filepath.Glob(at)
			for _, name := range names {
				if st, err := os.Stat(name); err == nil && st.IsDir() {
					out = append(out, name)
				}
			}
		}
		if len(out) > 0 && !strings.ContainsAny(at, `*?[`) {
			break
		}
		at = filepath.Dir(at)
	}
	return out
}

// bundle is a file with references and a pack, see gitformat-bundle(5).
type bundle struct {
	file  *os.File
	in    *bufio.Reader
	watch *watchdog
	heads advertised
	needs []plumbing.Hash
}

func openBundle(path string, watch *watchdog) (source, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoBundle, path)
	}
	if err != nil {
		return nil, err
	}
	b := &bundle{file: f, watch: watch}
	b.heads.refs = map[string]plumbing.Hash{}
	if err := b.readHead(); err != nil {
		f.Close()
		return nil, err
	}
	return b, nil
}

func (b *bundle) readHead() error {
	bounded := &io.LimitedReader{R: b.file, N: maxBundleHead}
	head := bufio.NewReader(bounded)
	signature, err := head.ReadString('\n')
	if err != nil || signature != "# v2 git bundle\n" && signature != "# v3 git bundle\n" {
		return errors.New("the file is not a git bundle of version 2 or 3; make one with git bundle create")
	}
	for {
		line, err := head.ReadString('\n')
		if err != nil {
			return errors.New("the bundle ends within its list of references; was it copied to its end?")
		}
		if line == "\n" {
			break
		}
		if err := b.readLine(strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
	// What was read ahead belongs to the pack, which has no such bound.
	bounded.N = 1 << 62
	b.in = head
	return nil
}

func (b *bundle) readLine(line string) error {
	switch line[0] {
	case '@':
		if format, ok := strings.CutPrefix(line, "@object-format="); ok {
			if format == "sha1" {
				return nil
			}
			return fmt.Errorf("the bundle's object format is %s, which is not supported yet", format)
		}
		return fmt.Errorf("the bundle needs %q, which is not supported; make it without a filter", line[1:])
	case '-':
		text, _, _ := strings.Cut(line[1:], " ")
		id, ok := parseID([]byte(text))
		if !ok {
			return errors.New("the bundle's list of prerequisites is malformed")
		}
		b.needs = append(b.needs, id)
		return nil
	}
	text, name, _ := strings.Cut(line, " ")
	id, ok := parseID([]byte(text))
	if !ok || name == "" {
		return errors.New("the bundle's list of references is malformed")
	}
	b.heads.refs[name] = id
	return nil
}

func (b *bundle) advertise(context.Context) (advertised, error) { return b.heads, nil }
func (b *bundle) omits() bool                                   { return false }

func (b *bundle) stage(ctx context.Context, m *Mirror, req request) ([]*staged, error) {
	for _, id := range b.needs {
		if !m.has(id) {
			return nil, &FetchError{
				URL:     bundleScheme + b.file.Name(),
				Problem: fmt.Sprintf("builds on commit %s, which this site does not have", short(id.String())),
				Remedy:  "make the bundle with more history, such as git bundle create FILE BRANCH",
			}
		}
	}
	s, err := m.stage(ctx, b.watch.count(b.in), req.bare || m.isPartial())
	if err != nil {
		return nil, err
	}
	return []*staged{s}, nil
}

func (b *bundle) close() { b.file.Close() }
