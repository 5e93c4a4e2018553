package wire

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
)

// Path is where requests are posted.
const Path = "/cni"

// MaxRequest bounds a request, in bytes.
const MaxRequest = 1 << 20

// The verbs of CNI 1.1.
const (
	Add    = "ADD"
	Del    = "DEL"
	Check  = "CHECK"
	GC     = "GC"
	Status = "STATUS"
)

// Request is a CNI invocation: the environment and the standard input of the
// plugin.
type Request struct {
	Command     string          `json:"command"`
	ContainerID string          `json:"containerID,omitempty"`
	Netns       string          `json:"netns,omitempty"`
	IfName      string          `json:"ifName,omitempty"`
	Args        string          `json:"args,omitempty"`
	Config      json.RawMessage `json:"config"`
}

// Response is what the plugin prints: a result or an error.
type Response struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *types.Error    `json:"error,omitempty"`
}

// PluginConfig is the part of the network configuration that is ours.
type PluginConfig struct {
	types.PluginConf

	// Socket is where the agent listens.
	Socket string `json:"socket"`
	// Deleted is a directory in which the plugin notes what was deleted while the
	// agent was away.
	Deleted string `json:"deleted"`

	RuntimeConfig struct {
		PortMappings []PortMapping `json:"portMappings,omitempty"`
	} `json:"runtimeConfig"`
}

// PortMapping is a host port as the runtime asks for it.
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// Attachment names one interface of one container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}
