// Package bootstrap runs the control plane of a single-node cluster: PKI,
// embedded etcd, kube-apiserver, kube-controller-manager and kube-scheduler,
// unforked and in one process, with the defaults a security reviewer would
// choose.
//
// [New] checks a [Config] and touches nothing. [ControlPlane.Components] is the
// control plane as a set of components for the supervisor:
//
//	pki ─▶ etcd ─▶ kube-apiserver ─┬▶ kube-controller-manager
//	 │                             ├▶ kube-scheduler
//	 │                             ├▶ system-objects
//	 └▶ certificates               └▶ encryption-keys
//
// What it promises: a write that was acknowledged survives the death of the
// process and of the machine; certificates and encryption keys renew
// themselves; without credentials nothing but health is answered; a second
// start of an unchanged node writes next to nothing.
//
// Upstream components keep state of the process (flags, feature gates, metric
// registries) and cannot run twice in it: there is one ControlPlane per
// process, its upstream components are never restarted alone, and a change of
// settings is a restart of the process. Logging through klog is configured by
// whoever owns the process, once.
//
// The package must not know about kubelets, networks, Git or the other parts
// of the node. What they need to find is in [Paths].
//
// Map: bootstrap.go is the public face, components.go the graph, options.go
// parses the command lines that package flags builds; apiserver.go,
// controllermanager.go and scheduler.go run one component each; roles.go
// replaces two start-up hooks of the API server by faster ones with the same
// result; secrets.go is encryption's view of the running cluster. Everything
// that does not need Kubernetes libraries is in the packages below this one
// and tested there. The whole is tested by
//
//	go test -tags integration ./bootstrap
//
// which runs real control planes in network namespaces, as root.
package bootstrap
