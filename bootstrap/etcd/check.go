package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// checkDatabase opens the database file as etcd will. etcd does so in a
// goroutine of its own, where damage would end the process without a word about
// what to do.
func checkDatabase(dir string) (err error) {
	file := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v", file, p)
		}
	}()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("%s: another process has it open", file)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() == 0 {
			return fmt.Errorf("%s: is empty", file)
		}
		return nil
	})
}
