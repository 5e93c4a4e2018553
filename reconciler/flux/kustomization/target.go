package kustomization

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/apply"
)

// target is a cluster together with the identity that objects are applied with.
type target struct {
	// key is the same for the same cluster and identity.
	key    string
	client *apply.Client
	hub    *apply.Hub
	// stop ends the hub if it is the target's own.
	stop func()
}

// targets are the connections to our own cluster, one for each identity.
type targets struct {
	config *rest.Config

	mu      sync.Mutex
	own     *apply.Client
	byLogin map[string]*apply.Client
}

func newTargets(config *rest.Config) *targets {
	return &targets{config: config, byLogin: map[string]*apply.Client{}}
}

// local returns the connection with the identity of a user, which is empty for
// the agent's own. What is known about the kinds of the cluster is shared.
func (ts *targets) local(user string) (*apply.Client, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.own == nil {
		own, err := apply.ConnectConfig(rest.CopyConfig(ts.config))
		if err != nil {
			return nil, fmt.Errorf("connect to the API server: %w", err)
		}
		ts.own = own
	}
	if user == "" {
		return ts.own, nil
	}
	if c := ts.byLogin[user]; c != nil {
		return c, nil
	}
	config := rest.CopyConfig(ts.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := ts.own.As(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server as %s: %w", user, err)
	}
	ts.byLogin[user] = c
	return c, nil
}

// targetOf finds where and as whom the object is applied.
func (a *attempt) targetOf(ctx context.Context) (*target, error) {
	account := a.obj.Spec.ServiceAccountName
	if account == "" {
		account = a.env.DefaultServiceAccount
	}
	user := ""
	if account != "" {
		user = "system:serviceaccount:" + a.obj.Namespace + ":" + account
	}
	if a.obj.Spec.KubeConfig != nil {
		return a.remoteTarget(ctx, user)
	}
	c, err := a.targets.local(user)
	if err != nil {
		return nil, err
	}
	key := "/" + user
	if t := a.job.target; t != nil && t.key == key {
		return t, nil
	}
	return &target{key: key, client: c, hub: a.env.Hub, stop: func() {}}, nil
}

// remoteTarget connects to the cluster of spec.kubeConfig.
func (a *attempt) remoteTarget(ctx context.Context, user string) (*target, error) {
	raw, err := a.kubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	key := hex.EncodeToString(sum[:]) + "/" + user
	if t := a.job.target; t != nil && t.key == key {
		return t, nil
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig in Secret '%s/%s': %w", a.obj.Namespace, a.obj.Spec.KubeConfig.SecretRef.Name, err)
	}
	if err := harmless(config); err != nil {
		return nil, fmt.Errorf("kubeconfig in Secret '%s/%s': %w", a.obj.Namespace, a.obj.Spec.KubeConfig.SecretRef.Name, err)
	}
	config.QPS = -1
	if user != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: user}
	}
	c, err := apply.ConnectConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect with the kubeconfig in Secret '%s/%s': %w", a.obj.Namespace, a.obj.Spec.KubeConfig.SecretRef.Name, err)
	}
	return a.watched(&target{key: key, client: c}), nil
}

// watched gives a target in another cluster a hub of its own, which ends with
// the job.
func (a *attempt) watched(t *target) *target {
	ctx, cancel := context.WithCancel(context.Background())
	t.hub = apply.NewHub(t.client, a.log.With("kustomization", a.name().String()))
	t.stop = cancel
	go func() {
		if err := t.hub.Run(ctx); err != nil {
			a.log.Error("watch a remote cluster", "kustomization", a.name().String(), "error", err)
		}
	}()
	return t
}

// kubeconfig reads the file that spec.kubeConfig names.
func (a *attempt) kubeconfig(ctx context.Context) ([]byte, error) {
	ref := a.obj.Spec.KubeConfig.SecretRef
	secret := &corev1.Secret{}
	if err := a.client.Get(ctx, client.ObjectKey{Namespace: a.obj.Namespace, Name: ref.Name}, secret); err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	keys := []string{"value", "value.yaml"}
	if ref.Key != "" {
		keys = []string{ref.Key}
	}
	for _, key := range keys {
		if raw := secret.Data[key]; len(raw) > 0 {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("the Secret '%s/%s' has no kubeconfig under the key %q", a.obj.Namespace, ref.Name, keys[0])
}

// harmless refuses what would let the author of an object run programs on this
// machine or read its files, and connections to servers that nobody checked.
func harmless(config *rest.Config) error {
	switch {
	case config.ExecProvider != nil, config.AuthProvider != nil:
		return errors.New("it runs a program to log in, which is not allowed; use a token or a client certificate")
	case config.BearerTokenFile != "", config.CertFile != "", config.KeyFile != "", config.CAFile != "":
		return errors.New("it names files, which are not there; put their content into it (kubectl config view --flatten)")
	case config.Insecure:
		return errors.New("insecure-skip-tls-verify is not allowed; put the server's certificate authority into it")
	}
	return nil
}
