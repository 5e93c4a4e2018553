package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"sigs.k8s.io/metrics-server/cmd/metrics-server/app/options"

	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/node/internal/listening"
	"github.com/bothy-os/bothy/node/internal/quietlog"
)

const (
	// ComponentName is the name of the metrics component.
	ComponentName = "metrics-api"
	// User is the name this component has at the API server and the kubelets.
	User = "bothy:metrics"
	// Port is where it listens on the node's address. The number was the
	// scheduler's insecure port, which upstream removed.
	Port = 10251
	// ServerName is the name its certificate must be valid for: the API server
	// reaches every aggregated API under the name of its Service.
	ServerName = serviceName + "." + serviceNamespace + ".svc"

	serviceName, serviceNamespace = "metrics-server", "kube-system"
)

const (
	// resolution is how often kubelets are asked: the horizontal pod autoscaler
	// looks every 15 s.
	resolution = 15 * time.Second
	// kubeletTimeout is how long one kubelet may take.
	kubeletTimeout = 10 * time.Second
)

// Config says where to listen and as whom.
type Config struct {
	// NodeIP is the address to listen on; not loopback, or the API server
	// refuses the EndpointSlice.
	NodeIP netip.Addr
	// NodeName makes the EndpointSlice of this node unique.
	NodeName string
	// Kubeconfig is the identity of user User.
	Kubeconfig string
	// CertFile and KeyFile serve ServerName. They are watched.
	CertFile, KeyFile string
	// CAFile verifies kubelets.
	CAFile string
	// Log receives warnings.
	Log *slog.Logger
}

// Component serves the metrics API. It is ready when it listens.
func Component(cfg Config, after []string) supervise.Component {
	return supervise.Component{
		Name:  ComponentName,
		After: after,
		Run:   func(ctx context.Context, ready func()) error { return run(ctx, cfg, ready) },
	}
}

func run(ctx context.Context, cfg Config, ready func()) error {
	ctx = quietlog.Context(ctx, cfg.Log, ComponentName)
	// Options.Validate is left out on purpose: it would configure the process's
	// logging a second time, which upstream refuses.
	config, err := serverOptions(cfg).ServerConfig()
	if err != nil {
		return fmt.Errorf("configure the metrics API: %w", err)
	}
	server, err := config.Complete()
	if err != nil {
		return fmt.Errorf("prepare the metrics API: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		if listening.Wait(ctx, net.JoinHostPort(cfg.NodeIP.String(), strconv.Itoa(Port))) == nil {
			ready()
		}
	}()
	if err := server.RunUntil(ctx.Done()); err != nil {
		return fmt.Errorf("serve the metrics API: %w", err)
	}
	return nil
}

func serverOptions(cfg Config) *options.Options {
	o := options.NewOptions()
	o.Kubeconfig = cfg.Kubeconfig
	o.MetricResolution = resolution

	o.SecureServing.BindAddress = cfg.NodeIP.AsSlice()
	o.SecureServing.BindPort = Port
	o.SecureServing.ServerCert.CertKey.CertFile = cfg.CertFile
	o.SecureServing.ServerCert.CertKey.KeyFile = cfg.KeyFile
	o.SecureServing.MinTLSVersion = "VersionTLS12"

	o.Authentication.RemoteKubeConfigFile = cfg.Kubeconfig
	o.Authorization.RemoteKubeConfigFile = cfg.Kubeconfig
	o.Features.EnableProfiling = false

	o.KubeletClient.KubeletCAFile = cfg.CAFile
	o.KubeletClient.KubeletUseNodeStatusPort = true
	o.KubeletClient.KubeletPreferredAddressTypes = []string{"InternalIP"}
	o.KubeletClient.KubeletRequestTimeout = kubeletTimeout
	return o
}
