// Package esp changes files of the EFI system partition so that a loss of power at any moment
// leaves it readable, with every file either as it was or as it is to be.
//
// The kernel's driver for FAT gives no such promise: replacing a file by renaming another
// over it writes directory and allocation table in no particular order, and the file that the
// firmware starts could be gone. Here a file is replaced in steps, each on the disk before the
// next begins: its content in clusters that nothing uses, their chain in the table, then one
// directory entry, which lies in one sector; and only then is what it replaces given free.
// What a cut leaves behind are clusters that nothing refers to; the next change finds them.
//
// The partition must not be mounted meanwhile. Only FAT32 is known, which is what package
// image/fat makes; new files and directories have names of eight and three characters.
//
// It must not know what the files are for.
//
// esp.go: opening and reading; directory.go: directories; replace.go: changes.
package esp
