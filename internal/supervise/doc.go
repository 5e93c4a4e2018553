// Package supervise runs the long-lived parts of a process.
//
// A [Component] has a name, the names of what must be ready before it, and a
// Run function. A [Supervisor] starts the graph as parallel as the order
// allows, restarts what fails with jittered exponential back-off, stops in
// reverse order, and keeps for each component its state, its last error and a
// short history. That record is what `bothy status` prints and what the
// progress display of `bothy up` draws.
//
//	           deps ready            ready()
//	waiting ───────────────▶ starting ───────▶ ready
//	   ▲                        │  error/panic  │
//	   │       back-off over    ▼               │
//	   └──────────────────── backoff ◀──────────┘
//	any state ── context ends ──▶ stopping ──▶ stopped
//	RestartNever and an early return ──▶ failed, and Supervisor.Run returns
//
// Nothing else in bothy starts a goroutine that outlives a request. The
// package must not know what the components do.
package supervise
