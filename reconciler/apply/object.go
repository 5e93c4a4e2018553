package apply

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

type digest [sha256.Size / 2]byte

// object is one wanted object and what is known about it in the cluster.
type object struct {
	id     ID
	res    *resource // nil until the kind is known
	body   []byte    // what is sent
	digest digest
	stage  int8
	policy policy
	// misplaced: Git says another namespace than the kind allows.
	misplaced bool
	// foreign: not ours; only its health is of interest.
	foreign bool
	// ignored are JSON pointers to the fields that are others' to set.
	ignored []string

	// The rest is guarded by Engine.mu.

	// tracked is the resource by which the hub watches the object.
	tracked *resource
	// known is what the last successful apply or look found; zero before.
	known   known
	applied digest
	skipped digest // reported as skipped
	// owned are the fields we own, kept for objects with ignored fields only.
	owned []byte
	// noticed says that somebody changed or deleted the object.
	noticed *notice
	// moved: the cluster has a newer version, whose health was not looked at.
	moved bool
	// left: the object in the cluster is annotated to be left alone.
	left bool
	// replacing: deleted in order to be created anew.
	replacing bool
	// inFlight: a request is under way; what the hub sees meanwhile waits in early.
	inFlight bool
	early    *sighting
	failure  *Failure
	health   health
	fight    *fight
}

// known identifies what an object in the cluster was like.
type known struct {
	uid     types.UID
	version string
	// mark and usurped summarise who owns which field; see traceOf.
	mark, usurped uint64
}

// policy is what annotations in Git say about one object.
type policy struct{ skip, ifNotPresent, merge, force bool }

func policyOf(annotations map[string]string, o *Options) policy {
	mode := annotations[PolicyAnnotation]
	return policy{
		skip:         mode == policyIgnore || annotations[ReconcileAnnotation] == disabled,
		ifNotPresent: mode == policyIfNotPresent,
		merge:        mode == policyMerge,
		force:        o.Force || annotations[ForceAnnotation] == enabled,
	}
}

// serverFields of the metadata are only on live objects; sending them would make
// every apply a conflict.
var serverFields = []string{"creationTimestamp", "resourceVersion", "uid", "generation", "managedFields", "selfLink"}

// newObject prepares an object for being sent. u is not changed.
func newObject(u *unstructured.Unstructured, options *Options, rules *rules) (*object, error) {
	o := &object{
		id:      IDOf(u),
		stage:   int8(stageOf(u.GroupVersionKind())),
		policy:  policyOf(u.GetAnnotations(), options),
		ignored: rules.ignored(u),
	}
	meta, _ := u.Object["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	if meta == nil {
		meta = map[string]any{}
	}
	for _, field := range serverFields {
		delete(meta, field)
	}
	labels, _ := meta["labels"].(map[string]any)
	if labels = maps.Clone(labels); labels == nil {
		labels = map[string]any{}
	}
	for key, value := range options.marks() {
		labels[key] = value
	}
	meta["labels"] = labels
	content := maps.Clone(u.Object)
	delete(content, "status") // the cluster's to say
	content["metadata"] = meta
	body, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.id, err)
	}
	o.setBody(body)
	return o, nil
}

func (o *object) setBody(body []byte) {
	o.body = body
	sum := sha256.Sum256(body)
	copy(o.digest[:], sum[:])
}

// inherit takes over what is known of the same object of the set before.
func (o *object) inherit(old *object) {
	if o.res == nil && o.id.Version == old.id.Version {
		o.res = old.res
	}
	if o.res != nil && o.res == old.tracked {
		o.tracked, old.tracked = old.tracked, nil
	}
	o.known, o.applied, o.skipped, o.owned = old.known, old.applied, old.skipped, old.owned
	o.noticed, o.moved, o.left, o.replacing = old.noticed, old.moved, old.left, old.replacing
	o.health, o.fight = old.health, old.fight
	if o.digest == old.digest {
		o.failure = old.failure
	}
}

// settled reports whether there is nothing to send: the cluster holds this very
// content as far as is known, or the object is to be left alone.
func (o *object) settled() bool {
	if o.policy.skip || o.left {
		return true
	}
	return o.failure == nil && o.noticed == nil && o.known.uid != "" && o.applied == o.digest
}

// counts reports whether the object's health is of interest.
func (e *Engine) counts(o *object) bool {
	return !o.policy.skip && !o.left && o.id.key() != e.o.Self.key()
}

// place says where the kind of the object lives, and puts an object without a
// namespace where kubectl would.
func (o *object) place(r *resource) {
	o.res = r
	if r.namespaced == (o.id.Namespace != "") {
		return
	}
	o.misplaced = true
	o.id.Namespace = otherPlace(o.id.Namespace)
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(o.body, &u.Object); err != nil {
		return // it was encoded by newObject
	}
	u.SetNamespace(o.id.Namespace)
	if body, err := json.Marshal(u.Object); err == nil {
		o.setBody(body)
	}
}

// otherPlace is where kubectl puts an object whose namespace does not suit its
// kind.
func otherPlace(namespace string) string {
	if namespace == "" {
		return metav1.NamespaceDefault
	}
	return ""
}
