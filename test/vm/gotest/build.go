package gotest

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

	"github.com/bothy-os/bothy/test/vm/rootfs"
)

// Binary is the compiled tests of one package.
type Binary struct {
	// Package is the import path, Name the part after the module.
	Package, Name string
	// dir is the source directory, file the program.
	dir, file string
}

// Build compiles the tests of packages, given as patterns of `go list` below the
// top of the source tree, into a directory. Packages without tests are left out.
func Build(ctx context.Context, root, into string, patterns ...string) ([]Binary, error) {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return nil, err
	}
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Module.Path}} {{.Dir}}{{end}}"
	list, err := goCommand(ctx, root, append([]string{"list", "-f", format}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var out []Binary
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("go list printed %q", line)
		}
		name := strings.TrimPrefix(fields[0], fields[1]+"/")
		b := Binary{Package: fields[0], Name: name, dir: fields[2], file: filepath.Join(into, strings.ReplaceAll(name, "/", "-")+".test")}
		if _, err := goCommand(ctx, root, "test", "-c", "-ldflags", "-s -w", "-o", b.file, b.Package); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no package of %v has tests", patterns)
	}
	return out, nil
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// AddTo puts the program where [Run] finds it, with the package's testdata.
func (b Binary) AddTo(tree *rootfs.Tree) error {
	err := tree.AddProgram(b.program(), b.file)
	data := filepath.Join(b.dir, "testdata")
	if _, missing := os.Stat(data); errors.Is(missing, fs.ErrNotExist) {
		return err
	}
	return errors.Join(err, tree.Add(path.Join(b.workDir(), "testdata"), data))
}

// workDir stands for the source directory, in which tests are run.
func (b Binary) workDir() string { return path.Join("/tests", b.Name) }

func (b Binary) program() string { return path.Join(b.workDir(), path.Base(b.Name)+".test") }
