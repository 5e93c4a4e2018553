// Package metrics serves the resource metrics API (metrics.k8s.io), which
// `kubectl top` and the horizontal pod autoscaler read, from inside this
// process: the metrics-server library without its pod.
//
// The API server reaches it through an APIService, a Service without selector
// and an EndpointSlice that names this node, and verifies its certificate
// against the cluster's CA; it verifies the kubelets' certificates in turn.
// Callers are authenticated by the API server's front proxy and authorised by
// asking the API server.
//
// The package must not know who issues certificates.
//
// Map: metrics.go is the component; objects.go and objects.yaml are the
// objects that introduce it to the API server.
package metrics
