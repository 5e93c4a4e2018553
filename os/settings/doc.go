// Package settings keeps what the operating system of a machine is set to by the
// repository: sysctls, modules, addresses, servers, disks.
//
// A change is tried before it counts. The [Engine] writes down that it tries one, has the
// [Part]s apply it, and waits for somebody who knows whether the machine still does what
// it is for to say so: [Engine.Confirm]. Without that word, in time, the old settings come
// back and the change is remembered as undone.
//
//	          propose                confirm
//	in force ────────▶ on trial ──────────────▶ in force
//	    ▲                 │ too late, an error, twice a restart
//	    └─── undone ◀─────┘
//
// Promises: at every moment the disk says which settings are to be in force after a loss of
// power, and these are never ones on trial; nothing has to work for a change to be undone,
// neither the agent nor the network; what was undone is not tried again until the settings
// change or somebody asks for it.
//
// The engine runs in `bothy-init machine` on the appliance, and the agent talks to it with
// a [Client]; in a node made by `bothy up` it runs in the agent, with what can be set there.
//
// It must not know about Git or Kubernetes: what a trial has to prove are words of whoever
// proposes it.
//
// Map: engine.go (trials), store.go (what is on disk), socket.go (protocol); sysctls.go,
// modules.go, disks.go, hostname.go (parts; addresses are in os/boot/machine).
package settings
