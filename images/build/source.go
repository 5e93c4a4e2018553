package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// file is one entry of an image's file system.
type file struct {
	// name is the path in the image, without a leading slash.
	name string
	mode fs.FileMode
	// from is the file to copy the content from.
	from string
	// link is the target of a symbolic link.
	link string
}

// files is what a source yields.
type files struct {
	entries []file
	// entrypoint is the path of the source's executable, if it has one.
	entrypoint string
}

func (s Source) files(ctx context.Context, arch, work string) (files, error) {
	switch {
	case s.GoPackage != "":
		bin, err := s.goBuild(ctx, arch, work)
		if err != nil {
			return files{}, err
		}
		return single(bin, filepath.Base(bin))
	case s.CFile != "":
		bin, err := s.cBuild(ctx, work)
		if err != nil {
			return files{}, err
		}
		return single(bin, filepath.Base(bin))
	case s.Binary != "":
		return single(s.Binary, filepath.Base(s.Binary))
	default:
		return tree(s.RootFS)
	}
}

// single is an image of one executable at its root: no shell, no package
// manager, nothing to attack but the program.
func single(from, name string) (files, error) {
	st, err := os.Stat(from)
	if err != nil {
		return files{}, err
	}
	if !st.Mode().IsRegular() {
		return files{}, fmt.Errorf("%s is not a regular file", from)
	}
	if err := checkStatic(from); err != nil {
		return files{}, err
	}
	return files{entries: []file{{name: name, mode: 0o755, from: from}}, entrypoint: "/" + name}, nil
}

// tree is every file below root. Devices, sockets and pipes have no place in
// an image and are refused.
func tree(root string) (files, error) {
	var out files
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := file{name: filepath.ToSlash(rel), mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			f.from = p
		case info.IsDir():
		case info.Mode()&fs.ModeSymlink != 0:
			if f.link, err = os.Readlink(p); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is %s: only files, directories and links can be in an image", p, info.Mode().Type())
		}
		out.entries = append(out.entries, f)
		return nil
	})
	if err == nil && len(out.entries) == 0 {
		err = fmt.Errorf("%s is empty", root)
	}
	return out, err
}

// goBuild compiles a package the way that gives the same bytes anywhere: no C,
// no build paths, no build ID, no version control stamp.
func (s Source) goBuild(ctx context.Context, arch, work string) (string, error) {
	out := filepath.Join(work, "go", s.outputName())
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out, s.GoPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS="+os.Getenv("GOFLAGS"))
	return out, s.run(cmd)
}

// cBuild compiles one C file into a small static executable.
func (s Source) cBuild(ctx context.Context, work string) (string, error) {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out := filepath.Join(work, "c", s.outputName())
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, cc, "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror",
		"-ffile-prefix-map="+filepath.Dir(s.CFile)+"=.", "-Wl,--build-id=none", "-o", out, s.CFile)
	return out, s.run(cmd)
}

func (s Source) outputName() string {
	if s.CFile != "" {
		return strings.TrimSuffix(filepath.Base(s.CFile), ".c")
	}
	return path.Base(filepath.ToSlash(filepath.Clean(s.GoPackage)))
}

func (s Source) run(cmd *exec.Cmd) error {
	cmd.Dir = s.Dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed: %w", cmd.Args[0], err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(output.String()))
	}
	return nil
}
