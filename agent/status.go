package agent

import (
	"time"

	"github.com/bothy-os/bothy/bootstrap"
	"github.com/bothy-os/bothy/images"
	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/internal/version"
	"github.com/bothy-os/bothy/netdata"
	"github.com/bothy-os/bothy/node"
	"github.com/bothy-os/bothy/os/settings"
	"github.com/bothy-os/bothy/reconciler"
)

// Status is a node as `bothy status -o json` prints it.
type Status struct {
	Node       NodeStatus        `json:"node"`
	Processes  []ProcessStatus   `json:"processes"`
	Components []ComponentStatus `json:"components"`
	// Git is the way from the repository to the cluster.
	Git reconciler.Status `json:"git"`
	// ControlPlane and Kubelet are nil while `bothy kube` is not running.
	ControlPlane *bootstrap.Status `json:"controlPlane,omitempty"`
	Kubelet      *node.Status      `json:"kubelet,omitempty"`
	Network      *netdata.Status   `json:"network,omitempty"`
	// Images is the image policy and what it has decided.
	Images *gate.Status `json:"images,omitempty"`
	// Imports is what the node did about the images that it carries.
	Imports *images.Status `json:"imports,omitempty"`
	// Settings are those of the machine's operating system; nil while nobody can say.
	Settings *settings.Status `json:"settings,omitempty"`
	// Machines are the workers that the site enrols, as a control plane sees them.
	Machines []MachineStatus `json:"machines,omitempty"`
	// OS is the operating system of the machine.
	OS *OSStatus `json:"os,omitempty"`
	// Pods counts this node's pods that have not ended.
	Pods PodCounts `json:"pods"`
	// URLs are where NodePort Services answer.
	URLs []string `json:"urls,omitempty"`
	// Milestones are seconds from the start of the node to the first time each
	// of these held: apiReady, nodeReady, commitApplied, workloadsReady.
	Milestones map[string]float64 `json:"milestones,omitempty"`
}

// PodCounts sums up pods.
type PodCounts struct {
	// Known is false until the pods were listed once.
	Known bool `json:"known"`
	Total int  `json:"total"`
	Ready int  `json:"ready"`
	// Stale pods ran before the node started and have not come back yet.
	Stale int `json:"stale"`
}

// NodeStatus is the machine itself.
type NodeStatus struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
	// Role is empty until a commit says it.
	Role string `json:"role,omitempty"`
	// Identity is the fingerprint of the machine's key.
	Identity string `json:"identity,omitempty"`
	Ready    bool   `json:"ready"`
	Reason   string `json:"reason,omitempty"`
	// Held says that the commit does not let the machine take part, which Reason explains.
	Held    bool         `json:"held,omitempty"`
	BootID  string       `json:"bootID"`
	Started time.Time    `json:"started"`
	Version version.Info `json:"version"`
	// TrustNone says that unsigned commits are accepted.
	TrustNone bool `json:"trustNone,omitempty"`
}

// ProcessStatus is one of bothy's processes, by its number inside the node.
type ProcessStatus struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
}

// ComponentStatus is a component and the process it runs in.
type ComponentStatus struct {
	Process string `json:"process"`
	supervise.Status
}

// KubeStatus is what `bothy kube` says about itself.
type KubeStatus struct {
	PID        int                `json:"pid"`
	Hash       string             `json:"hash"`
	Components []supervise.Status `json:"components"`
	// ControlPlane is nil on a worker.
	ControlPlane *bootstrap.Status `json:"controlPlane,omitempty"`
	Kubelet      node.Status       `json:"kubelet"`
	Images       *gate.Status      `json:"images,omitempty"`
	Imports      images.Status     `json:"imports"`
}

func (s *KubeStatus) ready(component string) bool {
	if s == nil {
		return false
	}
	for _, c := range s.Components {
		if c.Name == component {
			return c.State == supervise.Ready || c.State == supervise.Done
		}
	}
	return false
}
