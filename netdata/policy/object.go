package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	tables "github.com/bothy-os/bothy/netdata/maps"
)

// NewPod reads a Pod object. It returns nil for a pod that policy does not concern: on the
// network of its host, or over, so that its address may be another's.
func NewPod(in *corev1.Pod) *Pod {
	if in.Spec.HostNetwork || in.Status.Phase == corev1.PodSucceeded || in.Status.Phase == corev1.PodFailed {
		return nil
	}
	p := &Pod{
		Namespace: in.Namespace, Name: in.Name, UID: podUID(in),
		Labels: in.Labels, Node: in.Spec.NodeName, Created: in.CreationTimestamp.Time,
		Ports: namedPorts(in.Spec),
	}
	for _, ip := range in.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			p.Addrs = append(p.Addrs, a.Unmap())
		}
	}
	p.group = p.describe()
	return p
}

// podUID is what the runtime calls the pod. The object of a static pod only mirrors it and has another.
func podUID(in *corev1.Pod) types.UID {
	if mirrored := in.Annotations[corev1.MirrorPodAnnotationKey]; mirrored != "" {
		return types.UID(mirrored)
	}
	return in.UID
}

// describe is the same for pods that no policy can tell apart.
func (p *Pod) describe() string {
	var b strings.Builder
	b.WriteString(p.Namespace)
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		fmt.Fprintf(&b, "\n%s=%s", k, p.Labels[k])
	}
	var ports []string
	for name, number := range p.Ports {
		ports = append(ports, fmt.Sprintf("\n%s/%s:%d", name.Name, name.Proto, number))
	}
	slices.Sort(ports)
	for _, s := range ports {
		b.WriteString(s)
	}
	return b.String()
}

// namedPorts are those of containers that run beside each other. The first of a name counts.
func namedPorts(spec corev1.PodSpec) map[PortName]uint16 {
	var out map[PortName]uint16
	add := func(c corev1.Container) {
		for _, port := range c.Ports {
			proto, ok := protocol(&port.Protocol)
			if port.Name == "" || !ok {
				continue
			}
			name := PortName{port.Name, proto}
			if _, taken := out[name]; taken {
				continue
			}
			if out == nil {
				out = map[PortName]uint16{}
			}
			out[name] = uint16(port.ContainerPort)
		}
	}
	for _, c := range spec.Containers {
		add(c)
	}
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

func protocol(p *corev1.Protocol) (tables.Protocol, bool) {
	if p == nil {
		return tables.TCP, true
	}
	switch *p {
	case corev1.ProtocolTCP, "":
		return tables.TCP, true
	case corev1.ProtocolUDP:
		return tables.UDP, true
	case corev1.ProtocolSCTP:
		return tables.SCTP, true
	default:
		return 0, false
	}
}

// strip keeps of an object what this package reads, before it is cached.
func strip(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return stripPod(o), nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: stripMeta(o.ObjectMeta)}, nil
	case metav1.Object:
		o.SetManagedFields(nil)
		o.SetAnnotations(nil)
	}
	return obj, nil
}

func stripMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: m.Labels, CreationTimestamp: m.CreationTimestamp,
	}
}

func stripPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: stripMeta(p.ObjectMeta),
		Spec:       corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
		Status:     corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs},
	}
	if mirrored, ok := p.Annotations[corev1.MirrorPodAnnotationKey]; ok {
		out.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: mirrored}
	}
	out.Spec.Containers = stripContainers(p.Spec.Containers)
	out.Spec.InitContainers = stripContainers(p.Spec.InitContainers)
	return out
}

func stripContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range in {
		if len(c.Ports) > 0 {
			out = append(out, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return out
}
