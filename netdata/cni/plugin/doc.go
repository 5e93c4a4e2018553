// Package plugin is the program the container runtime starts for every pod: it
// hands its environment and standard input to the agent and prints the answer.
//
// It waits a moment for an agent that is just restarting. After that ADD, CHECK
// and STATUS say "try again later". DEL and GC succeed all the same: the runtime destroys
// the namespace, and with it the interface; the rest is noted in a directory
// that the agent reads when it is back.
//
// It must not know how a pod is wired, and stays free of everything that would make
// the binary large.
package plugin
