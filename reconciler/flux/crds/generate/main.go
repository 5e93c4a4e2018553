// Command generate writes the definitions of the Flux API, as upstream ships
// them, from the API modules that go.mod names. It runs in the package's
// directory:
//
//	go run ./generate [-descriptions=false]
//
// The generator is controller-gen, of the version that tools/controller-gen
// pins: the one that Flux uses.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The API packages. Only versions that are served and not deprecated are here.
func packages() []string {
	return []string{
		"github.com/fluxcd/source-controller/api/v1",
		"github.com/fluxcd/kustomize-controller/api/v1",
		"github.com/fluxcd/helm-controller/api/v2",
		"github.com/fluxcd/notification-controller/api/v1",
		"github.com/fluxcd/notification-controller/api/v1beta3",
	}
}

func main() {
	descriptions := flag.Bool("descriptions", true, "keep the descriptions of fields, which kubectl explain shows and the API server holds in memory")
	flag.Parse()
	if err := generate(*descriptions); err != nil {
		fmt.Fprintln(os.Stderr, "generate the definitions of the Flux API:", err)
		os.Exit(1)
	}
}

func generate(descriptions bool) error {
	bin, err := os.MkdirTemp("", "controller-gen-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	generator := filepath.Join(bin, "controller-gen")
	if err := run("go", "build", "-C", "../../../tools/controller-gen", "-o", generator, "sigs.k8s.io/controller-tools/cmd/controller-gen"); err != nil {
		return err
	}
	old, err := filepath.Glob("*.yaml")
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	crd := "crd:crdVersions=v1"
	if !descriptions {
		crd += ",maxDescLen=0"
	}
	args := []string{crd}
	for _, p := range packages() {
		args = append(args, "paths="+p)
	}
	return run(generator, append(args, "output:crd:artifacts:config=.")...)
}

func run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}
