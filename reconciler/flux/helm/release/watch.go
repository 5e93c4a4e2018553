package release

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// watches notice changes of Helm's storage and of the objects of releases, by
// watching metadata. Of each object a fingerprint is kept and nothing else. A
// kind is watched while a release asks for it, and only those of its objects
// that carry the labels of a release.
type watches struct {
	client metadata.Interface
	log    *slog.Logger
	// changed is told which release has something to look at.
	changed func(types.NamespacedName)

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // the manager's life, in which watches run
	kinds   map[schema.GroupVersionResource]*kindWatch
	wanted  map[types.NamespacedName][]schema.GroupVersionResource
	storage *kindWatch
	stored  map[storageName]types.NamespacedName
}

// storageName names a release in Helm's storage.
type storageName struct{ namespace, release string }

// kindWatch watches the objects of one kind.
type kindWatch struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc
}

const (
	// fingerprintKey holds the fingerprint in place of all annotations.
	fingerprintKey = "f"
	// releaseIndex finds the objects of a release in Helm's storage.
	releaseIndex = "release"
	// syncTimeout bounds how long a new watch is waited for.
	syncTimeout = 10 * time.Second
)

func newWatches(client metadata.Interface, log *slog.Logger, changed func(types.NamespacedName)) *watches {
	return &watches{
		client: client, log: log, changed: changed,
		kinds:  map[schema.GroupVersionResource]*kindWatch{},
		wanted: map[types.NamespacedName][]schema.GroupVersionResource{},
		stored: map[storageName]types.NamespacedName{},
	}
}

// Start implements manager.Runnable: watches run until ctx ends.
func (w *watches) Start(ctx context.Context) error {
	w.mu.Lock()
	w.ctx = ctx
	w.mu.Unlock()
	<-ctx.Done()
	return nil
}

// followStorage has changes of a release's storage told as its own, and returns
// how the storage is now. Without a running watch, that is "".
func (w *watches) followStorage(release types.NamespacedName, at storageName) string {
	w.mu.Lock()
	w.stored[at] = release
	if w.storage == nil && w.ctx != nil {
		secrets := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
		w.storage = w.watch(secrets, "owner=helm", plainFingerprint, w.storageChanged)
	}
	storage := w.storage
	w.mu.Unlock()
	if storage == nil || !w.synced(storage) {
		return ""
	}
	found, err := storage.informer.GetIndexer().ByIndex(releaseIndex, at.namespace+"/"+at.release)
	if err != nil {
		return ""
	}
	prints := make([]string, 0, len(found))
	for _, o := range found {
		if m, ok := o.(*v1.PartialObjectMetadata); ok {
			prints = append(prints, m.Name+"="+m.Annotations[fingerprintKey])
		}
	}
	slices.Sort(prints)
	return fmt.Sprint(prints)
}

func (w *watches) storageChanged(o *v1.PartialObjectMetadata) {
	w.mu.Lock()
	release, ok := w.stored[storageName{o.Namespace, o.Labels["name"]}]
	w.mu.Unlock()
	if ok {
		w.changed(release)
	}
}

// follow makes kinds the ones that are watched for a release; none ends it. It
// returns when what is there now is known, or after a while.
func (w *watches) follow(release types.NamespacedName, kinds []schema.GroupVersionResource) {
	w.mu.Lock()
	if len(kinds) == 0 {
		delete(w.wanted, release)
	} else {
		w.wanted[release] = kinds
	}
	var fresh []*kindWatch
	for _, kind := range kinds {
		if w.kinds[kind] == nil && w.ctx != nil {
			w.kinds[kind] = w.watch(kind, labelName, generationFingerprint, w.objectChanged)
			fresh = append(fresh, w.kinds[kind])
		}
	}
	w.dropUnwanted()
	w.mu.Unlock()
	for _, watch := range fresh {
		w.synced(watch)
	}
}

// forget ends everything that is watched for a release.
func (w *watches) forget(release types.NamespacedName) {
	w.follow(release, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.stored, func(_ storageName, r types.NamespacedName) bool { return r == release })
	if len(w.stored) == 0 && w.storage != nil {
		w.storage.stop()
		w.storage = nil
	}
}

// dropUnwanted ends watches that no release asks for. The caller holds the lock.
func (w *watches) dropUnwanted() {
	used := map[schema.GroupVersionResource]bool{}
	for _, kinds := range w.wanted {
		for _, kind := range kinds {
			used[kind] = true
		}
	}
	for kind, watch := range w.kinds {
		if !used[kind] {
			watch.stop()
			delete(w.kinds, kind)
		}
	}
}

func (w *watches) objectChanged(o *v1.PartialObjectMetadata) {
	release := types.NamespacedName{Namespace: o.Labels[labelNamespace], Name: o.Labels[labelName]}
	w.mu.Lock()
	_, ok := w.wanted[release]
	w.mu.Unlock()
	if ok {
		w.changed(release)
	}
}

// fingerprint returns what is known of an object: "" if it is not watched,
// "absent" if it is not there.
func (w *watches) fingerprint(kind schema.GroupVersionResource, namespace, name string) string {
	w.mu.Lock()
	watch := w.kinds[kind]
	w.mu.Unlock()
	if watch == nil || !watch.informer.HasSynced() {
		return ""
	}
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	o, ok, err := watch.informer.GetIndexer().GetByKey(key)
	if err != nil {
		return ""
	}
	m, isMetadata := o.(*v1.PartialObjectMetadata)
	if !ok || !isMetadata {
		return "absent"
	}
	return m.Annotations[fingerprintKey]
}

func (w *watches) synced(watch *kindWatch) bool {
	ctx, cancel := context.WithTimeout(context.Background(), syncTimeout)
	defer cancel()
	return cache.WaitForCacheSync(ctx.Done(), watch.informer.HasSynced)
}

// watch begins to watch a kind. The caller holds the lock.
func (w *watches) watch(kind schema.GroupVersionResource, selector string, fingerprint func(*v1.PartialObjectMetadata) string,
	changed func(*v1.PartialObjectMetadata),
) *kindWatch {
	informer := metadatainformer.NewFilteredMetadataInformer(w.client, kind, v1.NamespaceAll, 0, cache.Indexers{releaseIndex: byRelease},
		func(options *v1.ListOptions) { options.LabelSelector = selector }).Informer()
	err := informer.SetTransform(func(o any) (any, error) { return reduce(o, fingerprint), nil })
	if err == nil {
		_, err = informer.AddEventHandler(tellChanges(changed))
	}
	if err != nil {
		// Neither happens to an informer that was not started.
		w.log.Error("cannot watch objects of releases", "resource", kind.String(), "error", err)
	}
	ctx, stop := context.WithCancel(w.ctx)
	go informer.RunWithContext(ctx)
	return &kindWatch{informer: informer, stop: stop}
}

func byRelease(o any) ([]string, error) {
	m, ok := o.(*v1.PartialObjectMetadata)
	if !ok || m.Labels["name"] == "" {
		return nil, nil
	}
	return []string{m.Namespace + "/" + m.Labels["name"]}, nil
}

// tellChanges calls changed for objects whose fingerprint is another one.
func tellChanges(changed func(*v1.PartialObjectMetadata)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if m, ok := o.(*v1.PartialObjectMetadata); ok {
				changed(m)
			}
		},
		UpdateFunc: func(before, o any) {
			m, ok := o.(*v1.PartialObjectMetadata)
			b, okBefore := before.(*v1.PartialObjectMetadata)
			if ok && okBefore && m.Annotations[fingerprintKey] != b.Annotations[fingerprintKey] {
				changed(m)
			}
		},
		DeleteFunc: func(o any) {
			if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = tombstone.Obj
			}
			if m, ok := o.(*v1.PartialObjectMetadata); ok {
				changed(m)
			}
		},
	}
}

// reduce keeps of an object what is needed to find it and to see it change.
func reduce(o any, fingerprint func(*v1.PartialObjectMetadata) string) any {
	m, ok := o.(*v1.PartialObjectMetadata)
	if !ok {
		return o
	}
	kept := map[string]string{}
	for _, key := range []string{labelName, labelNamespace, "name"} {
		if value, ok := m.Labels[key]; ok {
			kept[key] = value
		}
	}
	return &v1.PartialObjectMetadata{ObjectMeta: v1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, ResourceVersion: m.ResourceVersion, Labels: kept,
		Annotations: map[string]string{fingerprintKey: fingerprint(m)},
	}}
}

func plainFingerprint(m *v1.PartialObjectMetadata) string { return string(m.UID) + m.ResourceVersion }

// generationFingerprint leaves out changes of the status of objects that tell
// them apart.
func generationFingerprint(m *v1.PartialObjectMetadata) string {
	if m.Generation == 0 {
		return plainFingerprint(m)
	}
	sum := fnv.New128a()
	fmt.Fprintf(sum, "%s %d %t", m.UID, m.Generation, m.DeletionTimestamp != nil)
	for _, set := range []map[string]string{m.Labels, m.Annotations} {
		for _, key := range slices.Sorted(maps.Keys(set)) {
			fmt.Fprintf(sum, "\x00%s\x00%s", key, set[key])
		}
		fmt.Fprint(sum, "\x01")
	}
	return hex.EncodeToString(sum.Sum(nil))
}
