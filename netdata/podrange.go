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
	"github.com/bothy-os/bothy/netdata/maps"
)

// podRangeRecord is the file that lets a node start without the API.
type podRangeRecord struct {
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
}

// findPodRanges takes the node's pod ranges from the configuration, from the last run, or else
// from the Node object, for which it waits. There is one for each family of the node. No
// ranges without error means that ctx ended.
func (n *Network) findPodRanges(ctx context.Context) ([]netip.Prefix, error) {
	if n.complete(n.cfg.PodCIDRs) == nil {
		return n.cfg.PodCIDRs, nil
	}
	var rec podRangeRecord
	err := durable.ReadJSON(n.cfg.podRangeFile(), &rec)
	if found := n.cfg.mine(rec.PodCIDRs); err == nil && n.complete(found) == nil {
		return found, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("remembered pod ranges are unreadable, asking the API", "err", err)
	}
	var found []netip.Prefix
	_, err = waitForAPI(ctx, n.cfg.Kubeconfig, func(ctx context.Context, client kubernetes.Interface) error {
		node, err := client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		all, err := podRangesOf(node)
		found = n.cfg.mine(all)
		return errors.Join(err, n.complete(found))
	})
	if err != nil || ctx.Err() != nil {
		return nil, err
	}
	if err := durable.WriteJSON(n.cfg.podRangeFile(), podRangeRecord{found}, 0o600); err != nil {
		return nil, fmt.Errorf("remember the pod ranges: %w", err)
	}
	return found, nil
}

// complete says what is missing for every family of the node to have a pod range.
func (n *Network) complete(ranges []netip.Prefix) error {
	if len(ranges) == len(n.cfg.NodeIPs) {
		return nil
	}
	for _, ip := range n.cfg.NodeIPs {
		if len(ranges) == 0 || !sameFamily(ranges[0].Addr(), ip) {
			return fmt.Errorf("node %s has no %s pod range yet; the controller manager allocates it", n.cfg.NodeName, maps.FamilyOf(ip))
		}
	}
	return nil
}

func podRangesOf(node *corev1.Node) ([]netip.Prefix, error) {
	ranges := node.Spec.PodCIDRs
	if len(ranges) == 0 && node.Spec.PodCIDR != "" {
		ranges = []string{node.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("node %s: pod range: %w", node.Name, err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
