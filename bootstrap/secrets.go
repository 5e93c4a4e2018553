package bootstrap

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-base/metrics/legacyregistry"
)

const (
	secretsPrefix = "/registry/secrets/"
	secretsPage   = 100
	// loadedMetric carries the hash of the configuration in use as a label.
	loadedMetric = "apiserver_encryption_config_controller_last_config_info"
)

// secretStore is the running cluster as a key rotation sees it.
type secretStore struct {
	client kubernetes.Interface
	etcd   *clientv3.Client
}

func (cp *ControlPlane) secretStore(ctx context.Context) (*secretStore, error) {
	api, err := cp.api.wait(ctx)
	if err != nil {
		return nil, err
	}
	server, err := cp.etcd.wait(ctx)
	if err != nil {
		return nil, err
	}
	return &secretStore{client: api.client, etcd: server.Client()}, nil
}

// WaitLoaded asks the API server's metrics, which live in this process.
func (s *secretStore) WaitLoaded(ctx context.Context, hash string) error {
	return poll(ctx, 500*time.Millisecond, func() bool {
		families, err := legacyregistry.DefaultGatherer.Gather()
		if err != nil {
			return false
		}
		for _, family := range families {
			if family.GetName() != loadedMetric {
				continue
			}
			for _, metric := range family.GetMetric() {
				for _, label := range metric.GetLabel() {
					if label.GetName() == "hash" && label.GetValue() == hash {
						return true
					}
				}
			}
		}
		return false
	})
}

// Rewrite stores every Secret again. The API server leaves out writes that
// change nothing, unless the stored value was encrypted with an older key.
func (s *secretStore) Rewrite(ctx context.Context) (int, error) {
	n := 0
	opts := metav1.ListOptions{Limit: secretsPage}
	for {
		page, err := s.client.CoreV1().Secrets("").List(ctx, opts)
		if err != nil {
			return n, fmt.Errorf("list Secrets: %w", err)
		}
		for i := range page.Items {
			if err := s.rewriteOne(ctx, &page.Items[i]); err != nil {
				return n, fmt.Errorf("rewrite Secret %s/%s: %w", page.Items[i].Namespace, page.Items[i].Name, err)
			}
			n++
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return n, nil
		}
	}
}

func (s *secretStore) rewriteOne(ctx context.Context, secret *corev1.Secret) error {
	secrets := s.client.CoreV1().Secrets(secret.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		_, err := secrets.Update(ctx, secret, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			if fresh, getErr := secrets.Get(ctx, secret.Name, metav1.GetOptions{}); getErr == nil {
				secret = fresh
			}
		}
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil // deleted meanwhile
	}
	return err
}

// Outdated reads etcd itself: what counts is what is on disk.
func (s *secretStore) Outdated(ctx context.Context, prefix string) (int, error) {
	outdated := 0
	from, end := secretsPrefix, clientv3.GetPrefixRangeEnd(secretsPrefix)
	for {
		page, err := s.etcd.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(secretsPage))
		if err != nil {
			return 0, fmt.Errorf("read Secrets from etcd: %w", err)
		}
		for _, kv := range page.Kvs {
			if !strings.HasPrefix(string(kv.Value), prefix) {
				outdated++
			}
		}
		if !page.More {
			return outdated, nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}
