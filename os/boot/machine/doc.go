// Package machine makes a machine of bothy's own ready for the agent, and keeps it so: it
// finds the boot configuration, brings up the network, holds the clock, keeps the kernel's
// log, and shows on the console how things are.
//
// It runs beside process 1, as `bothy-init machine`, because it listens to the network:
// when it fails it is started again and nothing else is touched. Once it knows the
// machine's name and address it writes the environment that the agent reads, and sends
// process 1 [ReadySignal].
//
// On a machine that was started from an installation medium it writes the system to a disk
// instead, and on one that a seed volume wants to begin anew it has everything forgotten.
//
// Promises: a boot configuration is read once and kept on the data partition, and one that
// is not valid is never half used; without a network a machine that had one starts with the
// address it had; the clock never shows a time before the one the image was built at or
// that the machine has seen.
//
// It must not know about Git or Kubernetes: what the console shows of them is what the
// agent says.
//
// Map: machine.go (the order of things); config.go, with seed.go, firmware.go (boot
// configuration); network.go, link.go, dhcp.go (the uplink), addresses.go (all interfaces);
// settings.go (those of the repository); installer.go, reset.go, bundles.go (what volumes ask for and bring); clock.go;
// button.go; kernellog.go; room.go (of the data partition); screen.go, agent.go (what the console shows).
package machine
