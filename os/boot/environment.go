package boot

import (
	"encoding/json"
	"fmt"
	"os"
)

// Paths inside a node. They are the same everywhere, so that what is written
// in certificates, mounts and container records stays true when a state
// directory moves.
const (
	StateDir        = "/var/lib/bothy"
	RunDir          = "/run/bothy"
	BPFDir          = RunDir + "/bpf"
	EnvironmentFile = RunDir + "/environment.json"
	BootConfigFile  = StateDir + "/boot.yaml"
	AgentSocket     = RunDir + "/agent.sock"
	// MediumFile is there on a machine that was started from a medium without a data
	// partition: what it keeps is in memory.
	MediumFile = RunDir + "/medium"
	// MachineSocket is where a machine of bothy's own is told its settings.
	MachineSocket = RunDir + "/machine.sock"
	// KubePIDFile holds the process id of `bothy kube`, so that process 1 can
	// end it after the agent.
	KubePIDFile = RunDir + "/kube.pid"
)

// SeedConfig is the file with the boot configuration on a seed volume.
const SeedConfig = "bothy.yaml"

// Environment is what a node knows about itself before it has read anything
// from Git.
type Environment struct {
	// Name of the node, in Kubernetes and as host name.
	Name string `json:"name"`
	// Address is the node's IP address, on interface Uplink. Address6 is its IPv6 address
	// there, or "" if it has none beside Address.
	Address  string `json:"address"`
	Address6 string `json:"address6,omitempty"`
	Uplink   string `json:"uplink"`
	// StateDir is the directory that becomes /var/lib/bothy.
	StateDir string `json:"stateDir"`
	// BinDir holds bothy and its helpers.
	BinDir string `json:"binDir"`
	// ImageLayouts are OCI layout directories to import at start.
	ImageLayouts []string `json:"imageLayouts,omitempty"`
	// CgroupRoot is the node's cgroup in every hierarchy, e.g. /bothy-default.
	CgroupRoot string `json:"cgroupRoot"`
	// Cgroup2Dir is the node's directory in the cgroup2 hierarchy, or "".
	Cgroup2Dir string `json:"cgroup2Dir,omitempty"`
	// ResolvConf is the content of the resolver configuration for the node and
	// its pods.
	ResolvConf string `json:"resolvConf"`
	// Appliance says that the machine runs nothing but bothy, whose settings therefore are
	// the repository's to say.
	Appliance bool `json:"appliance,omitempty"`
	// BootID changes whenever the node starts anew, but not when the agent does.
	BootID string `json:"bootID"`
	// StartedAt is when the start of the node was asked for, Unix nanoseconds.
	StartedAt int64 `json:"startedAt"`
}

// LoadEnvironment reads what process 1 wrote.
func LoadEnvironment() (*Environment, error) {
	data, err := os.ReadFile(EnvironmentFile)
	if err != nil {
		return nil, fmt.Errorf("this command runs inside a node, where process 1 has left %s; use `bothy up` to make one: %w", EnvironmentFile, err)
	}
	env := &Environment{}
	if err := json.Unmarshal(data, env); err != nil {
		return nil, fmt.Errorf("decode %s: %w", EnvironmentFile, err)
	}
	return env, nil
}

// ResolvConfFile is the resolver configuration that pods inherit.
func (*Environment) ResolvConfFile() string { return RunDir + "/resolv.conf" }
