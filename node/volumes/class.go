package volumes

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/bothy-os/bothy/api/v1alpha1"
)

const (
	managedByLabel, managedBy = "app.kubernetes.io/managed-by", "bothy"
	defaultClassAnnotation    = "storageclass.kubernetes.io/is-default-class"
	defaultClassName          = "local"
)

// class is the StorageClass the settings ask for.
func class(spec v1alpha1.LocalStorageSpec) *storagev1.StorageClass {
	name := spec.ClassName
	if name == "" {
		name = defaultClassName
	}
	reclaim := corev1.PersistentVolumeReclaimPolicy(spec.ReclaimPolicy)
	if reclaim == "" {
		reclaim = corev1.PersistentVolumeReclaimDelete
	}
	binding, expansion := storagev1.VolumeBindingWaitForFirstConsumer, true
	sc := &storagev1.StorageClass{
		ObjectMeta:           metav1.ObjectMeta{Name: name, Labels: map[string]string{managedByLabel: managedBy}},
		Provisioner:          Provisioner,
		ReclaimPolicy:        &reclaim,
		VolumeBindingMode:    &binding,
		AllowVolumeExpansion: &expansion,
	}
	if !spec.NotDefault {
		sc.Annotations = map[string]string{defaultClassAnnotation: "true"}
	}
	return sc
}

// ensureClass makes the StorageClass what the settings ask for, and removes
// the one of earlier settings. Most fields of a StorageClass are immutable, so
// a change replaces it; volumes do not refer to it once they exist.
func ensureClass(ctx context.Context, client kubernetes.Interface, spec v1alpha1.LocalStorageSpec) error {
	classes := client.StorageV1().StorageClasses()
	existing, err := classes.List(ctx, metav1.ListOptions{LabelSelector: labels.Set{managedByLabel: managedBy}.String()})
	if err != nil {
		return fmt.Errorf("list storage classes: %w", err)
	}
	want := class(spec)
	for _, have := range existing.Items {
		if have.Provisioner != Provisioner {
			continue
		}
		if !spec.Disabled && have.Name == want.Name && sameClass(&have, want) {
			return nil
		}
		if err := classes.Delete(ctx, have.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove storage class %s: %w", have.Name, err)
		}
	}
	if spec.Disabled {
		return nil
	}
	_, err = classes.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// Another node made it meanwhile, or it is the user's own.
		return adopt(ctx, client, want)
	}
	if err != nil {
		return fmt.Errorf("create storage class %s: %w", want.Name, err)
	}
	return nil
}

func adopt(ctx context.Context, client kubernetes.Interface, want *storagev1.StorageClass) error {
	have, err := client.StorageV1().StorageClasses().Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read storage class %s: %w", want.Name, err)
	}
	if have.Provisioner != Provisioner {
		return fmt.Errorf("storage class %s belongs to provisioner %s: choose another name in cluster.yaml, spec.storage.local.className", want.Name, have.Provisioner)
	}
	return nil
}

// sameClass compares what the settings decide. Annotations that others added
// are theirs.
func sameClass(have, want *storagev1.StorageClass) bool {
	annotations := maps.Clone(have.Annotations)
	return *have.ReclaimPolicy == *want.ReclaimPolicy &&
		*have.VolumeBindingMode == *want.VolumeBindingMode &&
		have.AllowVolumeExpansion != nil && *have.AllowVolumeExpansion &&
		annotations[defaultClassAnnotation] == want.Annotations[defaultClassAnnotation]
}
