package volumes

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

const testNode = "n1"

// cluster is the component against a fake API server.
type cluster struct {
	t      *testing.T
	client *fake.Clientset
	store  *store
	quota  *fakeQuota
}

func newCluster(t *testing.T, spec v1alpha1.LocalStorageSpec) *cluster {
	t.Helper()
	return newClusterWith(t, fake.NewClientset(), Config{Local: spec})
}

func newClusterWith(t *testing.T, client *fake.Clientset, cfg Config) *cluster {
	t.Helper()
	c := &cluster{t: t, client: client, quota: newFakeQuota()}
	cfg.NodeName, cfg.Dir, cfg.Log = testNode, filepath.Join(t.TempDir(), "volumes"), testLog()
	v := New(cfg)
	v.store.quota = c.quota
	c.store = v.store
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- v.runWith(ctx, c.client, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("component ended: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	return c
}

// claim makes a claim as the scheduler leaves it: placed on a node.
func (c *cluster) claim(name, node string, mode corev1.PersistentVolumeAccessMode, size string) *corev1.PersistentVolumeClaim {
	c.t.Helper()
	class := defaultClassName
	pvc, err := c.client.CoreV1().PersistentVolumeClaims("ns").Create(c.t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Annotations: map[string]string{
			selectedNode: node, "volume.kubernetes.io/storage-provisioner": Provisioner,
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return pvc
}

func (c *cluster) volumes() []corev1.PersistentVolume {
	list, err := c.client.CoreV1().PersistentVolumes().List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// bind does the controller-manager's part.
func (c *cluster) bind(pv corev1.PersistentVolume, pvc *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	c.t.Helper()
	ctx := c.t.Context()
	pv.Status.Phase = corev1.VolumeBound
	if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, &pv, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	pvc.Spec.VolumeName = pv.Name
	pvc.Status.Phase = corev1.ClaimBound
	pvc.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: pv.Spec.Capacity[corev1.ResourceStorage]}
	out, err := c.client.CoreV1().PersistentVolumeClaims(pvc.Namespace).Update(ctx, pvc, metav1.UpdateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) events(reason string) []string {
	list, err := c.client.CoreV1().Events("").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		if e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

func TestClaimGetsAVolumeOnItsNodeThatGrowsAndGoes(t *testing.T) {
	c := newCluster(t, v1alpha1.LocalStorageSpec{})
	pvc := c.claim("data", testNode, corev1.ReadWriteOnce, "64Mi")
	waitFor(t, "a volume", func() bool { return len(c.volumes()) == 1 })
	pv := c.volumes()[0]
	dir := filepath.Base(pv.Spec.Local.Path)

	if !strings.HasSuffix(dir, "_ns_data") || !strings.HasPrefix(dir, pv.Name) {
		t.Errorf("directory is called %s", dir)
	}
	hosts := pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values
	if len(hosts) != 1 || hosts[0] != testNode {
		t.Errorf("volume is usable on %v", hosts)
	}
	if pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("reclaim policy %s", pv.Spec.PersistentVolumeReclaimPolicy)
	}
	if !strings.HasPrefix(pv.Annotations[CapacityAnnotation], "enforced") {
		t.Errorf("capacity annotation %q", pv.Annotations[CapacityAnnotation])
	}

	pvc = c.bind(pv, pvc)
	pvc.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("128Mi")
	pvc.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing}}
	if _, err := c.client.CoreV1().PersistentVolumeClaims("ns").Update(t.Context(), pvc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the claim to report 128Mi", func() bool {
		now, err := c.client.CoreV1().PersistentVolumeClaims("ns").Get(t.Context(), "data", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		size := now.Status.Capacity[corev1.ResourceStorage]
		return size.String() == "128Mi" && len(now.Status.Conditions) == 0
	})
	grown := c.volumes()[0]
	if size := grown.Spec.Capacity[corev1.ResourceStorage]; size.String() != "128Mi" {
		t.Errorf("volume has %s", size.String())
	}

	grown.Status.Phase = corev1.VolumeReleased
	if _, err := c.client.CoreV1().PersistentVolumes().Update(t.Context(), &grown, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the volume to be deleted", func() bool { return len(c.volumes()) == 0 })
	waitFor(t, "the directory to be gone", func() bool { return c.store.count() == 0 })
}

func TestRetainedVolumeKeepsItsDirectory(t *testing.T) {
	c := newCluster(t, v1alpha1.LocalStorageSpec{ReclaimPolicy: "Retain"})
	pvc := c.claim("data", testNode, corev1.ReadWriteOnce, "64Mi")
	waitFor(t, "a volume", func() bool { return len(c.volumes()) == 1 })
	pv := c.volumes()[0]
	c.bind(pv, pvc)
	released := c.volumes()[0]
	released.Status.Phase = corev1.VolumeReleased
	if _, err := c.client.CoreV1().PersistentVolumes().Update(t.Context(), &released, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// A second claim is served after the release was seen, so the first volume
	// had its chance to be deleted.
	other := c.claim("other", testNode, corev1.ReadWriteMany, "1Mi")
	waitFor(t, "an event about "+other.Name, func() bool { return len(c.events("ProvisioningFailed")) > 0 })
	if len(c.volumes()) != 1 || c.store.count() != 1 {
		t.Errorf("%d volumes, %d directories after release with policy Retain", len(c.volumes()), c.store.count())
	}
}

func TestSharedAccessIsRefusedWithAnEvent(t *testing.T) {
	c := newCluster(t, v1alpha1.LocalStorageSpec{})
	c.claim("shared", testNode, corev1.ReadWriteMany, "64Mi")
	waitFor(t, "an event", func() bool { return len(c.events("ProvisioningFailed")) > 0 })
	if got := c.events("ProvisioningFailed")[0]; !strings.Contains(got, "use ReadWriteOnce") || strings.Contains(got, "rpc error") {
		t.Errorf("event says %q", got)
	}
	if len(c.volumes()) != 0 || c.store.count() != 0 {
		t.Errorf("%d volumes, %d directories", len(c.volumes()), c.store.count())
	}
}

func TestImpossibleSizeIsRefusedWithAnEvent(t *testing.T) {
	c := newCluster(t, v1alpha1.LocalStorageSpec{})
	c.claim("huge", testNode, corev1.ReadWriteOnce, "900Pi")
	waitFor(t, "an event", func() bool { return len(c.events("ProvisioningFailed")) > 0 })
	if got := c.events("ProvisioningFailed")[0]; !strings.Contains(got, "whole disk") {
		t.Errorf("event says %q", got)
	}
}

func TestClaimsOfOtherNodesAreLeftAlone(t *testing.T) {
	p := &provisioner{node: testNode}
	for node, want := range map[string]bool{testNode: true, "n2": false, "": false} {
		pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{selectedNode: node}}}
		if got := p.ShouldProvision(t.Context(), pvc); got != want {
			t.Errorf("claim placed on %q: ShouldProvision is %v", node, got)
		}
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{NodeAnnotation: node}}}
		pv.Spec.Local = &corev1.LocalVolumeSource{Path: "/volumes/pvc-1_ns_a"}
		if got := p.ShouldDelete(t.Context(), pv); got != want {
			t.Errorf("volume of %q: ShouldDelete is %v", node, got)
		}
	}
}

func TestDeleteRefusesAForeignPath(t *testing.T) {
	s, _ := testStore(t)
	p := &provisioner{node: testNode, store: s, log: testLog()}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-1", Annotations: map[string]string{NodeAnnotation: testNode}}}
	for _, path := range []string{"/etc", s.path("pvc-2_ns_a"), s.dir} {
		pv.Spec.Local = &corev1.LocalVolumeSource{Path: path}
		if err := p.Delete(t.Context(), pv); err == nil {
			t.Errorf("deleted %s for volume pvc-1", path)
		}
	}
}

func TestStorageClassFollowsTheSettings(t *testing.T) {
	client := fake.NewClientset()
	get := func(name string) *storagev1.StorageClass {
		sc, err := client.StorageV1().StorageClasses().Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return sc
	}
	apply := func(spec v1alpha1.LocalStorageSpec) {
		t.Helper()
		if err := ensureClass(t.Context(), client, spec); err != nil {
			t.Fatal(err)
		}
	}

	apply(v1alpha1.LocalStorageSpec{})
	sc := get("local")
	if sc == nil || sc.Annotations[defaultClassAnnotation] != "true" || *sc.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer || !*sc.AllowVolumeExpansion || *sc.ReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Fatalf("default class is %+v", sc)
	}
	writes := len(client.Actions())
	apply(v1alpha1.LocalStorageSpec{})
	for _, a := range client.Actions()[writes:] {
		if a.GetVerb() != "list" {
			t.Errorf("applying the same settings again does %s", a.GetVerb())
		}
	}

	apply(v1alpha1.LocalStorageSpec{ReclaimPolicy: "Retain", NotDefault: true})
	if sc = get("local"); sc == nil || *sc.ReclaimPolicy != corev1.PersistentVolumeReclaimRetain || sc.Annotations[defaultClassAnnotation] != "" {
		t.Errorf("after a change of immutable fields the class is %+v", sc)
	}
	apply(v1alpha1.LocalStorageSpec{ClassName: "disk"})
	if get("local") != nil || get("disk") == nil {
		t.Error("renaming did not move the class")
	}
	apply(v1alpha1.LocalStorageSpec{Disabled: true})
	if get("disk") != nil {
		t.Error("disabled, and the class is still there")
	}

	foreign := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: "example.com/other"}
	if _, err := client.StorageV1().StorageClasses().Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := ensureClass(t.Context(), client, v1alpha1.LocalStorageSpec{}); err == nil || !strings.Contains(err.Error(), "className") {
		t.Errorf("a class of somebody else: %v", err)
	}
}

func TestDirectoryNamesFitAFileSystem(t *testing.T) {
	name := directoryName("pvc-1", strings.Repeat("n", 63), strings.Repeat("c", 253))
	if len(name) > 255 || !strings.HasPrefix(name, "pvc-1_") {
		t.Errorf("%d bytes: %s", len(name), name)
	}
}

// A worker has volumes of the class that the control plane keeps, and leaves that alone.
func TestWorkerLeavesTheClassToTheControlPlane(t *testing.T) {
	other := class(v1alpha1.LocalStorageSpec{ReclaimPolicy: "Retain"})
	c := newClusterWith(t, fake.NewClientset(other), Config{Worker: true})
	c.claim("data", testNode, corev1.ReadWriteOnce, "64Mi")
	waitFor(t, "a volume", func() bool { return len(c.volumes()) == 1 })
	if pv := c.volumes()[0]; pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Errorf("reclaim policy %s is not that of the class", pv.Spec.PersistentVolumeReclaimPolicy)
	}
	for _, a := range c.client.Actions() {
		if a.GetResource().Resource == "storageclasses" && a.GetVerb() != "list" && a.GetVerb() != "watch" && a.GetVerb() != "get" {
			t.Errorf("the worker wants to %s a StorageClass", a.GetVerb())
		}
	}
}
