// Package services turns Service and EndpointSlice objects into rows of the
// dataplane's tables.
//
// [Compile] is a pure function from one Service and its slices to the frontends
// it should have. [Writer] is the only one that writes the tables: it keeps
// what is installed, gives every frontend an extent of slots, and replaces a
// frontend by writing a new extent and then its one row, so that no packet ever meets
// half an update. [Controller] feeds both from informers, one Service at a
// time, remembers what went wrong with which, and tries again.
//
// compile.go maps addresses and policies to rows, endpoints.go chooses who is behind them, zone.go
// follows the node's zone, healthcheck.go answers on health check ports, extents.go hands out
// slots.
//
// Promises: rows that an earlier agent wrote are kept and serve until the API
// has been read completely once; an unchanged Service costs no write; only
// ready endpoints are used, or terminating ones that still serve when there is
// nobody else.
//
// The package must not know about eBPF, pods' interfaces or sockets; what it needs of
// them is the [Table] and [FlowCutter] interfaces.
package services
