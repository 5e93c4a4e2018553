// Package update replaces the operating system of a machine of bothy's own by another, on
// trial first, and goes back by itself when that does not work out.
//
// There is no boot loader. The firmware starts EFI/BOOT/BOOTX64.EFI, the last boot file that
// is known to work, as it does on any disk. Another generation is written beside it, its root
// file system into the slot that does not run and its boot file as EFI/BOTHY/NEXT.EFI; then
// the firmware is told, by BootNext, to start that one once. Whatever happens next, unless
// the new generation is found to be healthy and becomes BOOTX64.EFI, the start after that is
// the old generation's. No generation is ever started again without its attempts being
// counted first.
//
//	         Stage              Arm                 process 1            Commit
//	(none) ───────▶ writing ─▶ written ─▶ armed ────────────▶ started ─────────▶ current
//	   ▲                                    │                    │
//	   └──────── Settle ◀── the old generation runs again ◀──────┘
//
// What counts is what is on the EFI system partition and in the firmware; the record, a file
// on the data partition, says what that means. docs/appliance.md says what a loss of power
// at each step leads to; the tests cut it at every write.
//
// Promises: nothing of an image is written before the caller has verified it, and nothing
// that was written is started before it was read back and compared with the root hash in the
// boot file; a generation that said itself that it failed, or that ended twice without a
// word, is remembered by its digest and not started again.
//
// It must not know where images come from, who signs them, or what healthy means.
//
// Map: update.go ([Updater], the steps); record.go (what is remembered); generation.go (which
// system runs); bootfile.go (what is in a boot file); machine.go (the disk and the firmware of
// a real machine); trial.go (process 1's part).
package update
