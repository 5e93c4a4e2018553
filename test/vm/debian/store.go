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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Store is a directory of unpacked packages. What is in it already is used
// without asking the network.
type Store struct {
	dir  string
	lock *lock
}

// Open returns the store in a directory, which is made if missing.
func Open(dir string) (*Store, error) {
	l, err := parseLock(packagesYAML)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Store{dir: abs, lock: l}, os.MkdirAll(abs, 0o755)
}

// Busybox returns the path of a statically linked busybox.
func (s *Store) Busybox(ctx context.Context) (string, error) {
	dir, err := s.unpacked(ctx, "busybox-static")
	if err != nil {
		return "", err
	}
	for _, path := range []string{"usr/bin/busybox", "bin/busybox"} {
		if file := filepath.Join(dir, path); exists(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("there is no busybox in %s", dir)
}

// unpacked returns the directory with the content of a package.
func (s *Store) unpacked(ctx context.Context, name string) (string, error) {
	p, err := s.lock.find(name)
	if err != nil {
		return "", err
	}
	return s.once(name+"_"+p.SHA256[:12], func(dir string) error {
		deb, err := s.fetch(ctx, p)
		if err != nil {
			return err
		}
		defer os.Remove(deb)
		return run(ctx, "", "dpkg-deb", "--extract", deb, dir)
	})
}

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

// fetch returns a file with the package, from its suite or, when that has
// moved on, from the archive of the day in packages.yaml.
func (s *Store) fetch(ctx context.Context, p pkg) (string, error) {
	current := aptSource{"http://deb.debian.org/" + s.lock.Suites[p.Suite].Archive, s.lock.Suites[p.Suite].Suite, "signed-by=" + keyring}
	deb, err := s.download(ctx, current, p)
	if err == nil {
		return deb, nil
	}
	// Signatures of an archived suite are past their date.
	archived := current
	archived.url = fmt.Sprintf("http://snapshot.debian.org/archive/%s/%s", s.lock.Suites[p.Suite].Archive, s.lock.Snapshot)
	archived.options += " check-valid-until=no"
	deb, again := s.download(ctx, archived, p)
	if again == nil {
		return deb, nil
	}
	return "", fmt.Errorf("get package %s %s: %w; and from the archive: %w; if the version is gone for good, name a newer one in test/vm/debian/packages.yaml", p.Name, p.Version, err, again)
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

type aptSource struct{ url, suite, options string }

// download has apt fetch the package with a configuration that neither
// reads nor changes the machine's.
func (s *Store) download(ctx context.Context, src aptSource, p pkg) (string, error) {
	dir, err := os.MkdirTemp(s.dir, ".apt-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is never used
	config := filepath.Join(dir, "apt.conf")
	sources := fmt.Sprintf("deb [arch=amd64 %s] %s %s main\n", src.options, src.url, src.suite)
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "lists/partial"), 0o755),
		os.WriteFile(filepath.Join(dir, "sources.list"), []byte(sources), 0o644),
		os.WriteFile(config, []byte(aptConfig(dir)), 0o644),
	); err != nil {
		return "", err
	}
	env := "APT_CONFIG=" + config
	if err := runIn(ctx, dir, env, "apt-get", "update", "-q", "--error-on=any"); err != nil {
		return "", err
	}
	if err := runIn(ctx, dir, env, "apt-get", "download", "-q", p.Name+"="+p.Version); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download of %s left %d packages in %s, %w", p.Name, len(debs), dir, err)
	}
	if err := checkSHA256(debs[0], p.SHA256); err != nil {
		return "", err
	}
	kept := filepath.Join(s.dir, p.Name+"_"+p.SHA256[:12]+".deb")
	return kept, os.Rename(debs[0], kept)
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

func checkSHA256(file, want string) error {
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
		return fmt.Errorf("%s has sha256 %s, packages.yaml wants %s: it is another file than the one that was tested with", filepath.Base(file), got, want)
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
