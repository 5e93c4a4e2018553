package build

import (
	"debug/elf"
	"fmt"
)

// checkStatic refuses an executable that needs a dynamic loader: there is none
// in an image of one file, and the failure in the pod would be the unhelpful
// "no such file or directory".
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s is not an executable for Linux: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically and would not start in an image without a C library: link it with -static, or CGO_ENABLED=0 for Go", path)
		}
	}
	return nil
}
