package gate

import (
	"io/fs"
	"syscall"
)

// inode is a file's number: each replacement has another one, even within the
// resolution of the clock.
func inode(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
