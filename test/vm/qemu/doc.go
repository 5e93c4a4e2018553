// Package qemu runs virtual machines.
//
// [Start] gives a [Machine] the hardware a [Config] lists and returns while it
// boots. What the machine prints on its serial port is kept and can be waited
// for; [Machine.Kill] is a power cut.
//
// Promises: no machine outlives the process that started it; nothing is changed on the
// host but the files named in the Config; hardware virtualisation is used only where it
// was shown to work, because some hosts offer it and then hang.
//
// It must not know what runs in a machine.
//
// machine.go: the process; hardware.go: its command line; console.go: the serial port;
// accelerator.go: KVM or emulation.
package qemu
