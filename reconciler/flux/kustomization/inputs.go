package kustomization

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/build"
	"github.com/bothy-os/bothy/reconciler/build/sops"
)

// inputs are what a build takes from the cluster.
type inputs struct {
	// variables are those of post-build substitution; nil substitutes nothing.
	variables map[string]string
	// secret are the values that came from Secrets.
	secret    []string
	decryptor build.Decryptor
	// digest identifies all of it.
	digest string
}

// redact hides values of Secrets in what an API server says about an object,
// which may quote it.
func (in inputs) redact(text string) string {
	for _, value := range in.secret {
		text = strings.ReplaceAll(text, value, "*****")
	}
	return text
}

// inputsDue reports whether what the object reads from the cluster must be
// looked at again: when something that is watched changed, or the interval is
// over.
func (a *attempt) inputsDue() bool {
	stale := a.job.inputsStale.Load()
	if !stale && len(referenceKeys(a.obj, "ConfigMap"))+len(referenceKeys(a.obj, "Secret")) == 0 {
		return false
	}
	// The interval has jitter; one that ends a little early is over.
	return stale || a.now().Sub(a.job.inputsAt) >= a.obj.Spec.Interval.Duration*9/10
}

// loadInputs reads ConfigMaps and Secrets.
func (a *attempt) loadInputs(ctx context.Context) (inputs, error) {
	a.job.inputsStale.Store(false)
	in := inputs{}
	sum := sha256.New()
	r := inputReader{a.client, a.obj}
	if err := r.loadVariables(ctx, &in, sum); err != nil {
		return in, err
	}
	if err := r.loadKeys(ctx, &in, sum); err != nil {
		return in, err
	}
	if a.obj.Spec.KubeConfig != nil {
		raw, err := a.kubeconfig(ctx)
		if err != nil {
			return in, err
		}
		add(sum, "kubeconfig", raw)
	}
	in.digest = hex.EncodeToString(sum.Sum(nil))
	return in, nil
}

// add puts one value into a digest, so that no two sets of values give the same.
func add(sum hash.Hash, name string, value []byte) {
	_, _ = fmt.Fprintf(sum, "%d:%s%d:", len(name), name, len(value))
	_, _ = sum.Write(value)
}

// inputReader reads what an object refers to.
type inputReader struct {
	client client.Reader
	obj    *kustomizev1.Kustomization
}

// Inputs are what a build of a Kustomization takes from the cluster.
type Inputs struct {
	// Variables are those of post-build substitution; nil substitutes nothing.
	Variables map[string]string
	// Decryptor opens what is encrypted; nil if the object names no keys.
	Decryptor build.Decryptor
}

// ReadInputs reads the ConfigMaps and Secrets that an object refers to, for
// whoever builds it without the controller.
func ReadInputs(ctx context.Context, reader client.Reader, obj *kustomizev1.Kustomization) (Inputs, error) {
	in, sum, r := inputs{}, sha256.New(), inputReader{reader, obj}
	if err := r.loadVariables(ctx, &in, sum); err != nil {
		return Inputs{}, err
	}
	err := r.loadKeys(ctx, &in, sum)
	return Inputs{Variables: in.variables, Decryptor: in.decryptor}, err
}

// loadVariables merges the variables of substitution as Flux does: later
// references win over earlier ones, and the object's own over all.
func (r inputReader) loadVariables(ctx context.Context, in *inputs, sum hash.Hash) error {
	p := r.obj.Spec.PostBuild
	if p == nil {
		return nil
	}
	variables := map[string]string{}
	for _, ref := range p.SubstituteFrom {
		values, err := r.substitutes(ctx, ref)
		if err != nil {
			return err
		}
		for key, value := range values {
			variables[key] = oneLine(value)
			if ref.Kind == "Secret" && len(variables[key]) >= minSecret {
				in.secret = append(in.secret, variables[key])
			}
		}
	}
	for key, value := range p.Substitute {
		variables[key] = oneLine(value)
	}
	for _, key := range slices.Sorted(maps.Keys(variables)) {
		add(sum, key, []byte(variables[key]))
	}
	slices.SortFunc(in.secret, func(a, b string) int { return len(b) - len(a) })
	if len(variables) > 0 || r.obj.GetSubstituteStrategy() == kustomizev1.SubstituteStrategyAlways {
		in.variables = variables
	}
	return nil
}

// minSecret is the length below which hiding a value would hide the message and
// tell what the value was.
const minSecret = 4

func oneLine(value string) string { return strings.ReplaceAll(value, "\n", "") }

// substitutes reads one reference.
func (r inputReader) substitutes(ctx context.Context, ref kustomizev1.SubstituteReference) (map[string]string, error) {
	key := client.ObjectKey{Namespace: r.obj.Namespace, Name: ref.Name}
	values := map[string]string{}
	var err error
	switch ref.Kind {
	case "ConfigMap":
		object := &corev1.ConfigMap{}
		err = r.client.Get(ctx, key, object)
		maps.Copy(values, object.Data)
	case "Secret":
		object := &corev1.Secret{}
		err = r.client.Get(ctx, key, object)
		for name, value := range object.Data {
			values[name] = string(value)
		}
	}
	if apierrors.IsNotFound(err) && ref.Optional {
		return nil, nil //nolint:nilnil // no object is no values
	}
	if err != nil {
		return nil, fmt.Errorf("substitute from '%s/%s': %w", ref.Kind, ref.Name, err)
	}
	return values, nil
}

// loadKeys reads the keys of decryption.
func (r inputReader) loadKeys(ctx context.Context, in *inputs, sum hash.Hash) error {
	d := r.obj.Spec.Decryption
	if d == nil || d.SecretRef == nil {
		return nil
	}
	secret := &corev1.Secret{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: r.obj.Namespace, Name: d.SecretRef.Name}, secret); err != nil {
		return fmt.Errorf("read the decryption keys: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
		add(sum, name, secret.Data[name])
	}
	keys, err := sops.New(secret.Data)
	if err != nil {
		return fmt.Errorf("decryption keys in Secret '%s/%s': %w", r.obj.Namespace, d.SecretRef.Name, err)
	}
	in.decryptor = keys
	return nil
}
