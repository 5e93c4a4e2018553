package release

import (
	"context"
	"fmt"
	"sync"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"k8s.io/client-go/discovery"
)

// capabilities are what charts may ask about a cluster: its version and the
// kinds that it serves. They have to be as new as the action that renders the
// chart, or a chart that was just waiting for a definition would miss it; but a
// hundred releases that start together need to ask only once.
type capabilities struct {
	discover discovery.DiscoveryInterface

	mu    sync.Mutex
	asked time.Time // when the question began whose answer is held
	held  *common.Capabilities
}

func newCapabilities(discover discovery.DiscoveryInterface) *capabilities {
	return &capabilities{discover: discover}
}

// since returns capabilities that were asked for no earlier than t. Those who
// wait for an answer meanwhile share the next one.
func (c *capabilities) since(ctx context.Context, t time.Time) (*common.Capabilities, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.held != nil && !c.asked.Before(t) {
		return c.held.Copy(), nil
	}
	began := time.Now()
	held, err := c.ask()
	if err != nil {
		return nil, err
	}
	c.asked, c.held = began, held
	return held.Copy(), nil
}

func (c *capabilities) ask() (*common.Capabilities, error) {
	version, err := c.discover.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("ask for the version of the cluster: %w", err)
	}
	kinds, err := action.GetVersionSet(c.discover)
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask for the kinds of the cluster: %w", err)
	}
	return &common.Capabilities{
		KubeVersion: common.KubeVersion{Version: version.GitVersion, Major: version.Major, Minor: version.Minor},
		APIVersions: kinds, HelmVersion: common.DefaultCapabilities.HelmVersion,
	}, nil
}
