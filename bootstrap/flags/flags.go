package flags

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/paths"
)

// Input is what the command lines depend on.
type Input struct {
	Paths  paths.Paths
	NodeIP netip.Addr
	// Cluster has its defaults filled in.
	Cluster *v1alpha1.Cluster
}

// Args are the command lines, without the program's name.
type Args struct {
	APIServer         []string
	ControllerManager []string
	Scheduler         []string
}

// Build returns the command lines, or all that is wrong with the operator's
// additions, as one error of *v1alpha1.FieldError values.
func Build(in Input) (Args, error) {
	cp := in.Cluster.Spec.ControlPlane
	api, err1 := apiServer(in).merge("apiServer", cp.APIServer.ExtraArgs)
	kcm, err2 := controllerManager(in).merge("controllerManager", cp.ControllerManager.ExtraArgs)
	sched, err3 := scheduler(in).merge("scheduler", cp.Scheduler.ExtraArgs)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Args{}, err
	}
	return Args{APIServer: api, ControllerManager: kcm, Scheduler: sched}, nil
}

// Validate checks the operator's additions in a cluster's settings.
func Validate(cluster *v1alpha1.Cluster) error {
	_, err := Build(Input{Cluster: cluster})
	return err
}

// A list is a command line in the making.
type list struct {
	flags []flag
	// refused are flags that are not set but must not be either, with the
	// reason.
	refused map[string]string
	// appended are flags whose values are joined with the operator's.
	appended map[string]bool
}

type flag struct{ name, value string }

func (l *list) set(name, value string) { l.flags = append(l.flags, flag{name, value}) }

func (l *list) strings() []string {
	out := make([]string, 0, len(l.flags))
	for _, f := range l.flags {
		out = append(out, "--"+f.name+"="+f.value)
	}
	return out
}

// logging is configured once for the process.
const loggingReason = "logging is configured for the whole process"

func refuseEverywhere() map[string]string {
	return map[string]string{
		"v": loggingReason, "vmodule": loggingReason, "logging-format": loggingReason, "log-flush-frequency": loggingReason,
		"config": "it would replace the settings made here", "kubeconfig": "bothy issues the credentials", "master": "bothy issues the credentials",
		"emulated-version": "upgrades go forward one release at a time", "min-compatibility-version": "upgrades go forward one release at a time",
		"help": "it is not a setting", "version": "it is not a setting",
	}
}

func join(values []string) string { return strings.Join(values, ",") }
