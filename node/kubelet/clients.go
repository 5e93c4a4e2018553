package kubelet

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"

	"github.com/bothy-os/bothy/node/internal/patient"
)

// addClients gives the kubelet its three clients, as upstream's own start-up
// code would, but with patient connections: otherwise a kubelet that starts
// beside its API server meets refused connections and backs off for seconds.
func addClients(deps *kubelet.Dependencies, kubeconfig string, server *options.KubeletServer) error {
	cfg, err := patient.RESTConfig(kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubelet's kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.ContentType = server.ContentType
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.QPS, cfg.Burst = float32(server.KubeAPIQPS), int(server.KubeAPIBurst)
	deps.OnHeartbeatFailure = func() { utilnet.CloseIdleConnectionsFor(cfg.Transport) }

	if deps.KubeClient, err = kubernetes.NewForConfig(cfg); err != nil {
		return fmt.Errorf("make the kubelet's client: %w", err)
	}
	events := rest.CopyConfig(cfg)
	events.QPS, events.Burst = float32(server.EventRecordQPS), int(server.EventBurst)
	eventClient, err := kubernetes.NewForConfig(events)
	if err != nil {
		return fmt.Errorf("make the kubelet's client for events: %w", err)
	}
	deps.EventClient = eventClient.CoreV1()

	heartbeat := rest.CopyConfig(cfg)
	heartbeat.QPS = -1 // heartbeats never wait behind other requests
	heartbeat.Timeout = min(server.NodeStatusUpdateFrequency.Duration, time.Duration(server.NodeLeaseDurationSeconds)*time.Second)
	if deps.HeartbeatClient, err = kubernetes.NewForConfig(heartbeat); err != nil {
		return fmt.Errorf("make the kubelet's client for heartbeats: %w", err)
	}
	return nil
}
