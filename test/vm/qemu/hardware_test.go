package qemu

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

func TestPortsGetTheDescriptorsTheyAreInheritedAs(t *testing.T) {
	a, b, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	args, files := Config{Accelerator: TCG, CPUs: 1, MemoryMiB: 64, Ports: map[string]*os.File{"x": a, "y": b}}.args()
	if len(files) != 2 {
		t.Fatalf("%d files are inherited", len(files))
	}
	for i, f := range files {
		name := map[*os.File]string{a: "x", b: "y"}[f]
		id := map[int]string{0: "3", 1: "4"}[i]
		if !slices.Contains(args, "socket,id=port"+id+",fd="+id) || !slices.Contains(args, "virtserialport,chardev=port"+id+",name="+name) {
			t.Errorf("port %s is not descriptor %s: %v", name, id, args)
		}
	}
}

// The probe must be able to say yes, or KVM would never be used.
func TestBootSectorRuns(t *testing.T) {
	if _, err := exec.LookPath(Binary); err != nil {
		t.Skip(err)
	}
	if err := probe(t.Context(), TCG); err != nil {
		t.Error(err)
	}
}
