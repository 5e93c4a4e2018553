package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Store is a directory of unpacked packages. What is in it already is used
// without asking the network.
type Store struct {
	dir  string
	lock *Lock
}

// Open returns the store in a directory, which is made if missing, of the packages that
// the lock names.
func Open(dir string, lock *Lock) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Store{dir: abs, lock: lock}, os.MkdirAll(abs, 0o755)
}

// Unpacked returns directories with the content of packages, in the order of the names.
func (s *Store) Unpacked(ctx context.Context, names ...string) ([]string, error) {
	dirs := make([]string, len(names))
	var missing []string
	for i, name := range names {
		p, err := s.lock.Find(name)
		if err != nil {
			return nil, err
		}
		dirs[i] = filepath.Join(s.dir, p.dirName())
		if !exists(dirs[i]) {
			missing = append(missing, name)
		}
	}
	debs, err := s.fetch(ctx, missing...)
	if err != nil {
		return nil, err
	}
	for i, deb := range debs {
		p, err := s.lock.Find(missing[i])
		if err != nil {
			return nil, err
		}
		_, err = s.once(p.dirName(), func(dir string) error { return run(ctx, "", "dpkg-deb", "--extract", deb, dir) })
		if err := errors.Join(err, os.Remove(deb)); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

func (p Package) dirName() string { return p.Name + "_" + p.SHA256[:12] }

// once makes the directory name in the store, whole or not at all.
func (s *Store) once(name string, fill func(dir string) error) (string, error) {
	final := filepath.Join(s.dir, name)
	if exists(final) {
		return final, nil
	}
	temp, err := os.MkdirTemp(s.dir, ".new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temp) }() // what stays is never used
	if err := fill(temp); err != nil {
		return "", err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	err = os.Rename(temp, final)
	if errors.Is(err, fs.ErrExist) { // somebody else was faster
		err = nil
	}
	return final, err
}

// fetch returns files with the packages, in the order of the names: from their suites
// or, when those have moved on, from the archive of the day that the lock names.
func (s *Store) fetch(ctx context.Context, names ...string) ([]string, error) {
	bySuite := map[string][]Package{}
	var all []Package
	for _, name := range names {
		p, err := s.lock.Find(name)
		if err != nil {
			return nil, err
		}
		all, bySuite[p.Suite] = append(all, p), append(bySuite[p.Suite], p)
	}
	for _, suite := range slices.Sorted(maps.Keys(bySuite)) {
		if err := s.fetchFrom(ctx, s.lock.Suites[suite], bySuite[suite]); err != nil {
			return nil, err
		}
	}
	var debs []string
	for _, p := range all {
		debs = append(debs, s.debFile(p))
	}
	return debs, nil
}

func (s *Store) debFile(p Package) string { return filepath.Join(s.dir, p.dirName()+".deb") }

func (s *Store) fetchFrom(ctx context.Context, suite Suite, packages []Package) error {
	current := aptSource{"http://deb.debian.org/" + suite.Archive, suite.Suite, "signed-by=" + keyring}
	err := s.download(ctx, current, packages)
	if err == nil {
		return nil
	}
	// Signatures of an archived suite are past their date.
	archived := current
	archived.url = fmt.Sprintf("http://snapshot.debian.org/archive/%s/%s", suite.Archive, s.lock.Snapshot)
	archived.options += " check-valid-until=no"
	again := s.download(ctx, archived, packages)
	if again == nil {
		return nil
	}
	return fmt.Errorf("get packages of %s: %w; and from the archive: %w; if a version is gone for good, name a newer one in %s", suite.Suite, err, again, s.lock.file)
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

type aptSource struct{ url, suite, options string }

// download has apt fetch packages with a configuration that neither reads nor changes
// the machine's.
func (s *Store) download(ctx context.Context, src aptSource, packages []Package) error {
	dir, env, err := s.aptDir(ctx, src)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is never used
	args := []string{"download", "-q"}
	for _, p := range packages {
		args = append(args, p.Name+"="+p.Version)
	}
	if err := runIn(ctx, dir, env, "apt-get", args...); err != nil {
		return err
	}
	for _, p := range packages {
		debs, err := filepath.Glob(filepath.Join(dir, p.Name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("apt-get download of %s left %d packages in %s, %w", p.Name, len(debs), dir, err)
		}
		if err := s.checkSHA256(debs[0], p.SHA256); err != nil {
			return err
		}
		if err := os.Rename(debs[0], s.debFile(p)); err != nil {
			return err
		}
	}
	return nil
}

// aptDir makes a directory in which apt knows the packages of a source and of no other;
// env makes apt use it.
func (s *Store) aptDir(ctx context.Context, src aptSource) (dir, env string, err error) {
	if dir, err = os.MkdirTemp(s.dir, ".apt-"); err != nil {
		return "", "", err
	}
	config := filepath.Join(dir, "apt.conf")
	sources := fmt.Sprintf("deb [arch=amd64 %s] %s %s main\n", src.options, src.url, src.suite)
	env = "APT_CONFIG=" + config
	err = errors.Join(
		os.MkdirAll(filepath.Join(dir, "lists/partial"), 0o755),
		os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644),
		os.WriteFile(config, []byte(aptConfig(dir)), 0o644),
	)
	if err == nil {
		err = runIn(ctx, dir, env, "apt-get", "update", "-q", "--error-on=any")
	}
	if err != nil {
		_ = os.RemoveAll(dir) // what stays is never used
	}
	return dir, env, err
}

func aptConfig(dir string) string {
	return fmt.Sprintf(`Dir::State "%[1]s";
Dir::State::Lists "%[1]s/lists";
Dir::State::status "/dev/null";
Dir::Cache "%[1]s";
Dir::Etc::SourceList "%[1]s/sources.list";
Dir::Etc::SourceParts "-";
APT::Architecture "amd64";
APT::Architectures {"amd64"};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
`, dir)
}

func (s *Store) checkSHA256(file, want string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has sha256 %s, %s wants %s: it is another file than the one that was tested with", filepath.Base(file), got, s.lock.file, want)
	}
	return nil
}

func run(ctx context.Context, dir, name string, args ...string) error {
	return runIn(ctx, dir, "LC_ALL=C", name, args...)
}

func runIn(ctx context.Context, dir, env, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
