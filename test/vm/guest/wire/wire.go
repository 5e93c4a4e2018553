// Package wire is what a virtual machine under test and its host say to each
// other: JSON values, one after the other, over a virtio serial port.
//
// The guest begins with a [Hello]. The host sends [Request]s; the guest sends
// [Reply]s, which carry the number of the request they belong to. Commands run beside
// each other.
package wire

import "time"

// Port is the name of the serial port.
const Port = "org.bothy-os.vm"

// Hello is the guest's first word.
type Hello struct {
	// Release of the kernel.
	Release string `json:"release"`
	// Work is how long the guest took for the work of package pace.
	Work time.Duration `json:"work"`
}

// Request is what the host wants. One of the fields beside ID is set.
type Request struct {
	ID uint64 `json:"id"`
	// Run starts a command under the number ID.
	Run *Command `json:"run,omitempty"`
	// Kill ends the command that was started under the number ID, with all it
	// started itself.
	Kill bool `json:"kill,omitempty"`
	// PowerOff writes everything to the disks and switches the machine off.
	PowerOff bool `json:"powerOff,omitempty"`
}

// Command is a program to run.
type Command struct {
	// Args begin with the program, which is looked for in PATH.
	Args []string `json:"args"`
	// Dir is the working directory, / if empty.
	Dir string `json:"dir,omitempty"`
	// Env is added to the guest's environment.
	Env []string `json:"env,omitempty"`
	// Stdin is all that the program can read.
	Stdin []byte `json:"stdin,omitempty"`
}

// Reply is what the guest has to say about a request.
type Reply struct {
	ID uint64 `json:"id"`
	// Stdout and Stderr are a part of the command's output.
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	// Exit is the last word about a command.
	Exit *Exit `json:"exit,omitempty"`
}

// Exit is how a command ended.
type Exit struct {
	// Code is the exit status, or -1 with an Error.
	Code int `json:"code"`
	// Error says why the command could not be started, or that a signal ended it.
	Error string `json:"error,omitempty"`
}
