package netdata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/internal/durable"
)

// podRangeRecord is the file that lets a node start without the API.
type podRangeRecord struct {
	PodCIDR netip.Prefix `json:"podCIDR"`
}

// findPodRange takes the node's pod range from the configuration, from the
// last run, or else from the Node object, for which it waits. An invalid prefix
// without error means that ctx ended.
func (n *Network) findPodRange(ctx context.Context) (netip.Prefix, error) {
	if n.cfg.PodCIDR.IsValid() {
		return n.cfg.PodCIDR.Masked(), nil
	}
	var rec podRangeRecord
	err := durable.ReadJSON(n.cfg.podRangeFile(), &rec)
	if err == nil && rec.PodCIDR.IsValid() {
		return rec.PodCIDR, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("remembered pod range is unreadable, asking the API", "err", err)
	}
	var found netip.Prefix
	_, err = waitForAPI(ctx, n.cfg.Kubeconfig, func(ctx context.Context, client kubernetes.Interface) error {
		node, err := client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		found, err = podRangeOf(node)
		return err
	})
	if err != nil || ctx.Err() != nil {
		return netip.Prefix{}, err
	}
	if err := durable.WriteJSON(n.cfg.podRangeFile(), podRangeRecord{found}, 0o600); err != nil {
		return netip.Prefix{}, fmt.Errorf("remember the pod range: %w", err)
	}
	return found, nil
}

func podRangeOf(node *corev1.Node) (netip.Prefix, error) {
	ranges := node.Spec.PodCIDRs
	if len(ranges) == 0 && node.Spec.PodCIDR != "" {
		ranges = []string{node.Spec.PodCIDR}
	}
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("node %s: pod range: %w", node.Name, err)
		}
		if p.Addr().Is4() {
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("node %s has no IPv4 pod range yet; the controller manager allocates it", node.Name)
}
