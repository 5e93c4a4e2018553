package debian

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnotherFileThanExpectedIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.deb")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	const hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	if err := (&Store{lock: &Lock{file: "lock.yaml"}}).checkSHA256(file, hello); err != nil {
		t.Error(err)
	}
	if err := (&Store{lock: &Lock{file: "lock.yaml"}}).checkSHA256(file, strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), hello) {
		t.Errorf("wrong content: %v", err)
	}
}

func TestNothingHalfDoneStays(t *testing.T) {
	s := &Store{dir: t.TempDir()}
	broken := errors.New("broken")
	_, err := s.once("a", func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(s.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	runs := 0
	for range 2 {
		dir, err := s.once("a", func(dir string) error {
			runs++
			return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
		})
		if err != nil || !exists(filepath.Join(dir, "whole")) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if runs != 1 {
		t.Errorf("filled %d times", runs)
	}
}
