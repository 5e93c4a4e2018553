// Package node is what makes a machine a Kubernetes node: containerd, the
// kubelet, the resource metrics API and volumes on the local disk, all inside
// this process.
//
// [New] takes a [Config] of plain values; [Node.Components] gives the parts to
// a supervisor. Nothing here waits for an API server: containerd and the
// kubelet start at once, so a node that comes back after a power cut is there
// when its control plane is. Containers belong to their shims and survive the
// death of this process; the next one adopts them.
//
// The package must not know other wings: who issues certificates, what writes
// the CNI configuration or how images got into containerd.
//
// Map: node.go joins the parts; runtime is containerd; kubelet the kubelet,
// with its configuration in kubelet/settings; metrics the metrics API; volumes
// the provisioner, light enough for any process.
package node
