// Package kubelet runs the kubelet inside this process.
//
// [Component] starts upstream's kubelet with the configuration that package
// settings decides. It starts at once, beside the API server and without
// waiting for it: its client holds requests back while nobody listens, so the
// node registers the moment the server does. Pods that were running when an
// earlier process died are taken over as they are.
//
// The kubelet keeps process-wide state and ends the process by itself on some
// failures, so the component is RestartNever.
//
// The package must not know containerd beyond its CRI socket, nor who issues
// certificates.
package kubelet
