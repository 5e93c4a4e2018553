package loader

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/bothy-os/bothy/netdata/maps"
)

// BenchmarkPrograms prints what a program costs per packet, as the kernel measures it: ns/packet. ns/op
// is mostly the system call of the measurement, and of no interest.
//
// A packet is run once per call, because the next run would see what the one before has changed.
// "nothing" is a packet that is not ours, and so what the measurement itself costs.
func BenchmarkPrograms(b *testing.B) {
	const vip, another = "10.96.0.20:80", "10.96.0.21:80" // of pod B and of pod A
	for _, c := range []struct {
		name string
		// before has been seen when packet is measured.
		before []packet
		packet packet
		raw    []byte
		// fresh gives every packet another source port: a new flow each time.
		fresh bool
	}{
		{name: "nothing", raw: arp()},
		{name: "pod to pod, known flow", before: []packet{tcp(podA+":1000", podB+":80", flagSYN)}, packet: tcp(podA+":1000", podB+":80", flagACK)},
		{name: "pod to pod, new flow", packet: tcp(podA+":1000", podB+":80", flagSYN), fresh: true},
		{name: "pod to Service, known flow", before: []packet{tcp(podA+":1000", vip, flagSYN)}, packet: tcp(podA+":1000", vip, flagACK)},
		{name: "answer of a Service, known flow", before: []packet{tcp(podB+":1000", another, flagSYN)}, packet: tcp(podA+":8080", podB+":1000", flagACK)},
		{name: "pod to Service, new flow", packet: tcp(podA+":1000", vip, flagSYN), fresh: true},
		{name: "pod to Service, datagram", before: []packet{udp(podA+":1000", vip)}, packet: udp(podA+":1000", vip)},
		{name: "pod to nowhere in the Service range", packet: tcp(podA+":1000", "10.96.0.99:80", flagSYN)},
	} {
		for _, services := range []int{1, 10000} {
			b.Run(fmt.Sprintf("%s/services=%d", c.name, services), func(b *testing.B) {
				d := load(b)
				d.must(d.Tables.SetServicesSynced())
				for _, proto := range []maps.Protocol{maps.TCP, maps.UDP} {
					d.service(vip, proto, uint32(proto), 0, podB+":8080")
				}
				d.service(another, maps.TCP, 50, 0, podA+":8080")
				for i := range services - 1 {
					d.service(fmt.Sprintf("10.96.%d.%d:80", 1+i/250, 1+i%250), maps.TCP, 100, 0, podB+":8080")
				}
				for _, p := range c.before {
					d.asPod(p)
				}
				frame := c.raw
				if frame == nil {
					frame = c.packet.frame()
				}
				d.cost(b, d.objs.FromPod, func(i int) []byte {
					if c.fresh {
						p := c.packet
						p.src = ap(fmt.Sprintf("%s:%d", podA, 1024+i%60000))
						return p.frame()
					}
					return frame
				})
			})
		}
	}
}

// cost runs the program b.N times and reports the mean.
func (d *bench) cost(b *testing.B, prog *ebpf.Program, frame func(i int) []byte) {
	b.Helper()
	var total float64
	for i := 0; b.Loop(); i++ {
		_, took, err := prog.Benchmark(frame(i), 1, nil)
		if err != nil {
			b.Fatal(err)
		}
		total += float64(took.Nanoseconds())
	}
	b.ReportMetric(total/float64(b.N), "ns/packet")
}

// arp is a frame that the programs leave alone.
func arp() []byte {
	frame := make([]byte, 60)
	frame[12], frame[13] = 0x08, 0x06
	return frame
}
