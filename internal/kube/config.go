// Package kube makes Kubernetes clients the way bothy wants them: certificate
// files are read again when they are renewed, protobuf is used where the
// server speaks it, and the client's own rate limit is off because the API
// server's priority and fairness is the judge.
package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config reads a kubeconfig file. The user agent is "bothy/<component>", which
// is what audit logs and managed fields show.
func Config(kubeconfig, component string) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	c.UserAgent = "bothy/" + component
	c.QPS, c.Burst = -1, -1
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c.ContentType = runtime.ContentTypeProtobuf
	return c, nil
}
