// Package volumes provides persistent volumes on the node's own disk.
//
// It keeps a StorageClass, and for each claim that the scheduler has placed on
// this node it makes a directory and a PersistentVolume of type local that is
// bound to the node. Type local rather than hostPath, because the kubelet then
// honours fsGroup, reports usage, and refuses to invent a missing directory.
// Where the file system has project quotas, a volume cannot grow beyond its
// capacity, and expanding a claim raises the limit of the running volume;
// elsewhere the PersistentVolume says in an annotation that its capacity is not
// enforced, and why.
//
// It promises never to lose data: a directory is removed only when its claim
// was deleted and the reclaim policy is Delete, by renaming it away first, so
// that a power cut leaves it whole or gone; a restart, a lost PersistentVolume
// object or a failed API server removes nothing. Volumes are ReadWriteOnce:
// directories of one node cannot be shared between nodes.
//
// Directories have mode 0777, as other local provisioners make them: a pod that
// runs as any user may write without asking for fsGroup. Nobody else gets
// there, because the directory above belongs to root alone.
//
// Every node cares for its own disk. The control plane keeps the StorageClass;
// a worker may touch only what is on its own disk or placed on it, which
// admission policies see to: what RBAC cannot express is in objects.yaml too.
//
// The package must not know the kubelet or containerd, and links nothing heavy:
// it runs in any process of the node.
//
// Map: volumes.go is the component; class.go keeps the StorageClass;
// provisioner.go answers the provisioner library; capacity.go enforces and
// expands; store.go works on directories; quota.go on project quotas;
// objects.yaml is what it may do.
package volumes
