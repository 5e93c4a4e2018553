// Package runtime runs containerd inside this process.
//
// [Component] starts containerd's server with the plugins a Kubernetes node
// needs and stops it when told. Containers are children of their shims, not of
// this process: when it dies, by whatever signal, they go on, and the next
// start finds their shims through the state directory and takes them over
// without restarting anything.
//
// containerd keeps process-wide state (plugin registrations, Prometheus
// collectors, its logger), so the component cannot run twice in one process:
// it is RestartNever, and a failure restarts the process.
//
// The package must not know the kubelet, images or the network.
//
// Map: config.go is the configuration as a pure function of [Config];
// snapshotter.go and capability.go find out what the machine can do; server.go
// runs the server; log.go brings its log to slog.
package runtime
