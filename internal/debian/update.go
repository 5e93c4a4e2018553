package debian

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// offer is what a suite has of a package.
type offer struct {
	version, sha256 string
	// depends is the first package that it needs.
	depends string
}

// Update asks the suites for their newest packages and returns the text of the lock file
// with those, and a line for each that has changed. Kernels move to what the package
// depends on that they follow. Everything else in the text, comments among it, stays.
func (s *Store) Update(ctx context.Context, text []byte) ([]byte, []string, error) {
	bySuite := map[string][]string{}
	for _, p := range s.lock.Packages {
		bySuite[p.Suite] = append(bySuite[p.Suite], p.Name)
	}
	var changes []string
	for _, suite := range slices.Sorted(maps.Keys(bySuite)) {
		show, done, err := s.catalogue(ctx, s.lock.Suites[suite])
		if err != nil {
			return nil, nil, err
		}
		err = s.updateFrom(show, bySuite[suite], &text, &changes)
		done()
		if err != nil {
			return nil, nil, fmt.Errorf("look for newer packages in %s: %w", suite, err)
		}
	}
	if _, err := ParseLock(s.lock.file, text); err != nil {
		return nil, nil, fmt.Errorf("the new lock file would not be good: %w", err)
	}
	return text, changes, nil
}

// catalogue returns a function that tells what a suite has.
func (s *Store) catalogue(ctx context.Context, suite Suite) (show func(name string) (offer, error), done func(), err error) {
	dir, env, err := s.aptDir(ctx, aptSource{"http://deb.debian.org/" + suite.Archive, suite.Suite, "signed-by=" + keyring})
	if err != nil {
		return nil, nil, err
	}
	show = func(name string) (offer, error) {
		cmd := exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", name)
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.Output()
		if err != nil {
			return offer{}, fmt.Errorf("package %s is not there any more: %w", name, err)
		}
		return parseOffer(out)
	}
	return show, func() { _ = os.RemoveAll(dir) }, nil
}

func parseOffer(stanza []byte) (offer, error) {
	var o offer
	for line := range strings.Lines(string(stanza)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Version":
			o.version = value
		case "SHA256":
			o.sha256 = value
		case "Depends":
			o.depends, _, _ = strings.Cut(value, " ")
			o.depends = strings.TrimSuffix(o.depends, ",")
		}
	}
	if o.version == "" || !hexSHA256.MatchString(o.sha256) {
		return o, fmt.Errorf("apt-cache shows no version and hash: %.100s", stanza)
	}
	return o, nil
}

func (s *Store) updateFrom(show func(string) (offer, error), names []string, text *[]byte, changes *[]string) error {
	for _, name := range names {
		old, err := s.lock.Find(name)
		if err != nil {
			return err
		}
		current := name
		if k := s.lock.following(name); k != nil {
			meta, err := show(k.Follow)
			if err != nil {
				return err
			}
			if current = meta.depends; current != name {
				*text = bytes.ReplaceAll(*text, []byte(name), []byte(current))
				*text = bytes.ReplaceAll(*text, []byte("release: "+k.Release+"\n"), []byte("release: "+strings.TrimPrefix(current, kernelPrefix)+"\n"))
			}
		}
		o, err := show(current)
		if err != nil {
			return err
		}
		if o.sha256 == old.SHA256 {
			continue
		}
		version := regexp.MustCompile(`(name: ` + regexp.QuoteMeta(current) + `\n\s+version: )\S+`)
		*text = version.ReplaceAll(*text, []byte("${1}"+o.version))
		*text = bytes.ReplaceAll(*text, []byte(old.SHA256), []byte(o.sha256))
		*changes = append(*changes, fmt.Sprintf("%s %s -> %s %s", name, old.Version, current, o.version))
	}
	return nil
}

const kernelPrefix = "linux-image-"

// following returns the kernel that is made of a package alone, and moves on with another.
func (l *Lock) following(name string) *KernelLock {
	for _, k := range l.Kernels {
		if k.Follow != "" && len(k.Packages) == 1 && k.Packages[0] == name {
			return &k
		}
	}
	return nil
}
