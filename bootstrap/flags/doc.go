// Package flags turns a node's settings into the command lines of
// kube-apiserver, kube-controller-manager and kube-scheduler.
//
// It is one pure function, [Build]: what a security reviewer wants to know
// about the control plane is a list of strings that a test can pin. Flags that
// an operator adds in cluster.yaml are merged in; a flag that bothy answers for
// is refused with the field that names it.
//
// The package must not import Kubernetes, so that settings can be checked
// before they are accepted, and does not know whether a flag exists upstream:
// that is found out when the component parses them.
//
// Map: flags.go holds Build, apiserver.go, controllermanager.go and
// scheduler.go one component each, extra.go the operator's flags.
package flags
