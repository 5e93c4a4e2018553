package release

import (
	"io"
	"log/slog"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/validation"
)

// fieldManager is the name under which objects are applied.
const fieldManager = "bothy"

// kubeClient is Helm's client with our way of waiting.
type kubeClient struct {
	*kube.Client
	waiter *waiter
}

// newKubeClient returns the client that actions work with.
func newKubeClient(c *cluster, w *waiter, log *slog.Logger) *kubeClient {
	helm := &kube.Client{Factory: factory{cmdutil.NewFactory(c)}, Namespace: c.namespace}
	helm.SetLogger(log.Handler())
	return &kubeClient{Client: helm, waiter: w}
}

// GetWaiter implements kube.Interface.
func (k *kubeClient) GetWaiter(strategy kube.WaitStrategy) (kube.Waiter, error) {
	return k.GetWaiterWithOptions(strategy)
}

// GetWaiterWithOptions implements kube.InterfaceWaitOptions.
func (k *kubeClient) GetWaiterWithOptions(strategy kube.WaitStrategy, options ...kube.WaitOption) (kube.Waiter, error) {
	if strategy != kube.LegacyStrategy {
		return k.waiter.with(strategy), nil
	}
	legacy, err := k.Client.GetWaiterWithOptions(strategy, options...)
	if err != nil {
		return nil, err
	}
	return &aside{legacy, k.waiter.aside}, nil
}

// factory is kubectl's, without its validation against the OpenAPI document: the
// API server validates strictly whatever is applied, and the document costs
// megabytes to fetch and far more to parse.
type factory struct{ cmdutil.Factory }

// Validator implements kube.Factory.
func (factory) Validator(string) (validation.Schema, error) {
	return validation.NoDoubleKeySchema{}, nil
}

// configuration is what Helm's actions need, with the storage seen by a witness.
// It is made for one action.
func (a *attempt) configuration(w witness) (*action.Configuration, *witnessed, error) {
	stored, err := a.storage(w)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(a.actionLog)
	config := action.NewConfiguration(action.ConfigurationSetLogger(a.actionLog))
	config.RESTClientGetter = a.cluster
	config.Releases = storage.Init(stored)
	config.Releases.SetLogger(a.actionLog)
	config.KubeClient = newKubeClient(a.cluster, a.waiter, log)
	config.HookOutputFunc = func(string, string, string) io.Writer { return io.Discard }
	if a.configure != nil {
		a.configure(config)
	}
	return config, stored, nil
}

// storage opens Helm's storage in its namespace.
func (a *attempt) storage(w witness) (*witnessed, error) {
	if a.driver != nil {
		return &witnessed{Driver: a.driver, witness: w}, nil
	}
	set, err := a.cluster.clientset()
	if err != nil {
		return nil, err
	}
	secrets := driver.NewSecrets(set.CoreV1().Secrets(a.object.Status.StorageNamespace))
	secrets.SetLogger(a.actionLog)
	return &witnessed{Driver: secrets, witness: w}, nil
}
