package volumes

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// selectedNode is how the scheduler says where a claim's volume shall be.
const selectedNode = "volume.kubernetes.io/selected-node"

// provisioner answers the provisioner library for this node. Every node of a
// cluster runs one; each cares for the claims placed on it.
type provisioner struct {
	node  string
	store *store
	log   *slog.Logger
}

var (
	_ controller.Provisioner   = (*provisioner)(nil)
	_ controller.Qualifier     = (*provisioner)(nil)
	_ controller.DeletionGuard = (*provisioner)(nil)
)

// ShouldProvision is true for claims the scheduler has placed on this node. A
// class with binding mode Immediate therefore never gets a volume here: nobody
// could say on which node it ought to be.
func (p *provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[selectedNode] == p.node
}

// Provision makes the directory, with its limit, and describes it as a volume.
// It may be called again for the same claim after a crash, and finds the
// directory then.
func (p *provisioner) Provision(_ context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if err := checkAccess(o.PVC.Spec.AccessModes); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	size := o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]
	if total, err := p.store.totalBytes(); err == nil && size.Value() > total {
		return nil, controller.ProvisioningFinished, infeasible("asks for %s, but the whole disk of node %s has %d MiB", size.String(), p.node, total>>20)
	}
	name := directoryName(o.PVName, o.PVC.Namespace, o.PVC.Name)
	capacity, err := p.store.create(name, size.Value())
	if err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make directory for the volume: %w", err)
	}
	p.log.Info("volume made", "volume", o.PVName, "claim", o.PVC.Namespace+"/"+o.PVC.Name, "size", size.String(), "capacity", capacity)
	return p.describe(o, name, capacity), controller.ProvisioningFinished, nil
}

// checkAccess refuses what a directory of one node cannot give. The library
// turns the error into an event on the claim.
func checkAccess(modes []corev1.PersistentVolumeAccessMode) error {
	for _, m := range modes {
		if m != corev1.ReadWriteOnce && m != corev1.ReadWriteOncePod {
			return infeasible("access mode %s is not possible: local volumes belong to one node, use ReadWriteOnce", m)
		}
	}
	return nil
}

// infeasibleError is an error that time alone will not cure. The library
// recognises it by its gRPC code and tries again rarely.
type infeasibleError struct{ message string }

func infeasible(format string, args ...any) error {
	return infeasibleError{fmt.Sprintf(format, args...)}
}

func (e infeasibleError) Error() string { return e.message }

// GRPCStatus is how google.golang.org/grpc/status finds the code.
func (e infeasibleError) GRPCStatus() *status.Status {
	return status.New(codes.InvalidArgument, e.message)
}

func (p *provisioner) describe(o controller.ProvisionOptions, name, capacity string) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if o.StorageClass.ReclaimPolicy != nil {
		reclaim = *o.StorageClass.ReclaimPolicy
	}
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        o.PVName,
			Labels:      map[string]string{managedByLabel: managedBy},
			Annotations: map[string]string{NodeAnnotation: p.node, CapacityAnnotation: capacity},
		},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: reclaim,
			AccessModes:                   slices.Clone(o.PVC.Spec.AccessModes),
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]},
			VolumeMode:                    &mode,
			MountOptions:                  o.StorageClass.MountOptions,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: p.store.path(name)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}},
			}}}},
		},
	}
}

// ShouldDelete is true for volumes on this node's disk.
func (p *provisioner) ShouldDelete(_ context.Context, pv *corev1.PersistentVolume) bool {
	_, ours := directoryOf(pv, p.node)
	return ours
}

// Delete moves the directory away. Its content is removed in the background.
func (p *provisioner) Delete(_ context.Context, pv *corev1.PersistentVolume) error {
	name, ours := directoryOf(pv, p.node)
	if !ours {
		return &controller.IgnoredError{Reason: "the volume is on another node"}
	}
	if pv.Spec.Local.Path != p.store.path(name) || !strings.HasPrefix(name, pv.Name) {
		return fmt.Errorf("volume %s points to %s, which this node did not make: remove it by hand", pv.Name, pv.Spec.Local.Path)
	}
	if err := p.store.discard(name); err != nil {
		return fmt.Errorf("remove directory of the volume: %w", err)
	}
	p.log.Info("volume removed", "volume", pv.Name)
	return nil
}

// directoryName starts with the volume's name, which is unique, and goes on
// with the claim's, for the person who looks at the disk.
func directoryName(pv, namespace, claim string) string {
	const longest = 255 // of a file name
	name := pv + "_" + namespace + "_" + claim
	return name[:min(len(name), longest)]
}
