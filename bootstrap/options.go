package bootstrap

import (
	"fmt"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kcmapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	schedoptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"github.com/bothy-os/bothy/bootstrap/flags"
	"github.com/bothy-os/bothy/bootstrap/podimages"
)

// options are the parsed settings of the upstream components. They are made
// together, before anything runs: they share one registry of feature gates,
// which must not change under a component that has started.
type options struct {
	apiServer         *apiserverapp.ServerRunOptions
	controllerManager *kcmoptions.KubeControllerManagerOptions
	scheduler         *schedoptions.Options
}

func parseOptions(args flags.Args, images podimages.Func) (*options, error) {
	o := &options{apiServer: apiserverapp.NewServerRunOptions(), scheduler: schedoptions.NewOptions()}
	var err error
	if images != nil {
		if err := podimages.Add(o.apiServer.Admission.GenericAdmission, images); err != nil {
			return nil, err
		}
	}
	if o.controllerManager, err = kcmoptions.NewKubeControllerManagerOptions(); err != nil {
		return nil, fmt.Errorf("prepare kube-controller-manager: %w", err)
	}
	if err := parse("apiServer", o.apiServer.Flags(), args.APIServer); err != nil {
		return nil, err
	}
	kcmFlags := o.controllerManager.Flags(kcmapp.KnownControllers(), kcmapp.ControllersDisabledByDefault(), kcmapp.ControllerAliases())
	o.controllerManager.ParsedFlags = &kcmFlags
	if err := parse("controllerManager", kcmFlags, args.ControllerManager); err != nil {
		return nil, err
	}
	if err := parse("scheduler", *o.scheduler.Flags, args.Scheduler); err != nil {
		return nil, err
	}
	if err := o.apiServer.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, fmt.Errorf("set feature gates: %w", err)
	}
	return o, nil
}

// parse reads a command line. Since bothy's own flags are right, an error is
// about one of the operator's.
func parse(component string, named cliflag.NamedFlagSets, args []string) error {
	fs := pflag.NewFlagSet(component, pflag.ContinueOnError)
	for _, f := range named.FlagSets {
		fs.AddFlagSet(f)
	}
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("spec.controlPlane.%s.extraArgs: %w", component, err)
	}
	return nil
}
