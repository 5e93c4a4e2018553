package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bothy-os/bothy/test/cluster"
)

// The namespaces of everything that is made in the API; one has no policy.
const (
	namespace     = "bench"
	openNamespace = "bench-open"
)

// pods are only there for their networks: the servers are started in them from
// outside, like those of the other sides. The policy has bothy judge every new flow.
const podManifest = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: measured}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 0.0.0.0/0}}]}]
  egress: [{to: [{podSelector: {}}]}]
`

func podOf(role, node string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {kubernetes.io/hostname: %[2]s}
  containers: [{name: toolbox, image: "bothy.local/toolbox:1", args: [sleep]}]
`, role, node)
}

// createPods makes the pods of our side.
func (s *site) createPods(ctx context.Context) error {
	manifest := podManifest
	for _, role := range roles {
		manifest += podOf(role, s.node.Name)
	}
	if s.node.Workers > 0 {
		manifest += podOf(farPod, s.node.Worker(1).Name)
	}
	return errors.Join(
		apply(ctx, s.kubectl, manifest),
		apply(ctx, s.kubectl.In(openNamespace), podOf(clientPod, s.node.Name)+podOf(serverPod, s.node.Name)),
	)
}

func apply(ctx context.Context, kubectl *cluster.Kubectl, manifest string) error {
	cmd := kubectl.Command(ctx, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("create the pods: %w: %s", err, out)
	}
	return nil
}

// Names of the Services that are used; the others are only there.
const (
	measured  = "measured"  // all tests, and a node port
	measured6 = "measured6" // the same for IPv6
	moving    = "moving"    // moves from one server to another

	measuredFar = "measured-far" // its endpoint is on another node
)

// target is how a Service is reached.
type target struct {
	clusterIP string
	nodePorts map[string]int32 // by test
}

// createTarget makes a Service that is measured, of the family of the backend. It has the ports of all sides.
func (s *site) createTarget(ctx context.Context, name, backend string) (target, error) {
	svc := service(name, nil)
	svc.Spec.Type = corev1.ServiceTypeNodePort
	slice := endpointSlice(name, nil, []string{backend})
	if slice.AddressType == discoveryv1.AddressTypeIPv6 {
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	}
	for test, l := range loads {
		for label, port := range map[string]int32{test: l.port, test + "-" + spliced: l.port + spliceShift} {
			proto := corev1.Protocol(l.proto)
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: label, Protocol: proto, Port: port})
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &label, Protocol: &proto, Port: &port})
		}
	}
	ip, made, err := s.create(ctx, svc, slice)
	t := target{clusterIP: ip, nodePorts: map[string]int32{}}
	if err != nil {
		return t, err
	}
	for _, p := range made.Spec.Ports {
		t.nodePorts[p.Name] = p.NodePort
	}
	return t, nil
}

// createSimple makes a Service with one TCP port and returns its address.
func (s *site) createSimple(ctx context.Context, name string, port int32, backends []string) (string, error) {
	ip, _, err := s.create(ctx, service(name, &port), endpointSlice(name, &port, backends))
	return ip, err
}

func (s *site) create(ctx context.Context, svc *corev1.Service, slice *discoveryv1.EndpointSlice) (string, *corev1.Service, error) {
	made, err := s.client.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("create Service %s: %w", svc.Name, err)
	}
	if _, err := s.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return "", nil, fmt.Errorf("create EndpointSlice of %s: %w", svc.Name, err)
	}
	return made.Spec.ClusterIP, made, nil
}

// setBackends replaces the endpoints of a simple Service.
func (s *site) setBackends(ctx context.Context, name string, port int32, backends []string) error {
	slice := endpointSlice(name, &port, backends)
	if _, err := s.client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, slice, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update EndpointSlice of %s: %w", name, err)
	}
	return nil
}

// service has no selector: its endpoints are ours to set.
func service(name string, port *int32) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	if port != nil {
		svc.Spec.Ports = []corev1.ServicePort{{Name: "only", Protocol: corev1.ProtocolTCP, Port: *port}}
	}
	return svc
}

func endpointSlice(name string, port *int32, backends []string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name + "-1", Namespace: namespace,
			Labels: map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "bench"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	if len(backends) > 0 && netip.MustParseAddr(backends[0]).Is6() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	if port != nil {
		only, proto := "only", corev1.ProtocolTCP
		slice.Ports = []discoveryv1.EndpointPort{{Name: &only, Protocol: &proto, Port: port}}
	}
	ready := true
	for _, b := range backends {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{b}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return slice
}

func fillerName(i int) string { return fmt.Sprintf("filler-%05d", i) }

// fillerPort is nobody's.
const fillerPort = 80

// fillerBackends are addresses of a range kept for benchmarks, which nobody has.
func fillerBackends(i, n int) []string {
	out := make([]string, n)
	for k := range out {
		v := i*n + k
		out[k] = netip.AddrFrom4([4]byte{198, byte(18 + v>>16&1), byte(v >> 8), byte(v)}).String()
	}
	return out
}

// fill makes Services until there are so many fillers.
func (s *site) fill(ctx context.Context, from, to int) error {
	return forAll(to-from, func(i int) error {
		i += from
		_, err := s.createSimple(ctx, fillerName(i), fillerPort, fillerBackends(i, 1))
		return err
	})
}

// forAll calls f for 0 to n-1, several at a time.
func forAll(n int, f func(int) error) error {
	const workers = 32 // the API server waits for its disk most of the time
	var wg sync.WaitGroup
	work, failed := make(chan int), make(chan error, workers)
	for range workers {
		wg.Go(func() {
			var err error
			for i := range work {
				if err == nil {
					err = f(i)
				}
			}
			failed <- err
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
