package loader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
)

// programs are the verified programs of one family.
type programs struct {
	nativePrograms
	// mapped are nil for IPv6.
	mapped mappedPrograms
}

// nativePrograms are what both families have.
type nativePrograms struct {
	FromPod      *ebpf.Program `ebpf:"from_pod"`
	ToPod        *ebpf.Program `ebpf:"to_pod"`
	FromExt      *ebpf.Program `ebpf:"from_ext"`
	ToExt        *ebpf.Program `ebpf:"to_ext"`
	SockConnect  *ebpf.Program `ebpf:"sock_connect"`
	SockSendmsg  *ebpf.Program `ebpf:"sock_sendmsg"`
	SockRecvmsg  *ebpf.Program `ebpf:"sock_recvmsg"`
	SockPeername *ebpf.Program `ebpf:"sock_peername"`
}

// mappedPrograms are IPv4's programs for IPv6 sockets that speak to IPv4-mapped addresses.
type mappedPrograms struct {
	Connect  *ebpf.Program `ebpf:"mapped_connect"`
	Sendmsg  *ebpf.Program `ebpf:"mapped_sendmsg"`
	Recvmsg  *ebpf.Program `ebpf:"mapped_recvmsg"`
	Peername *ebpf.Program `ebpf:"mapped_peername"`
}

// load verifies the programs of spec with the given maps.
func (p *programs) load(spec *ebpf.CollectionSpec, replace map[string]*ebpf.Map) error {
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel's verifier refused a program; please report this with `uname -r`: %w\n\t%s", err, strings.Join(verifier.Log, "\n\t"))
	}
	if err != nil {
		return fmt.Errorf("load programs (needs CAP_BPF and CAP_NET_ADMIN, kernel 6.1 or newer): %w", err)
	}
	defer coll.Close()
	if err := coll.Assign(&p.nativePrograms); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if coll.Programs["mapped_connect"] == nil {
		return nil
	}
	if err := coll.Assign(&p.mapped); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	return nil
}

func (p *programs) close() {
	for _, prog := range []*ebpf.Program{
		p.FromPod, p.ToPod, p.FromExt, p.ToExt, p.SockConnect, p.SockSendmsg, p.SockRecvmsg, p.SockPeername,
		p.mapped.Connect, p.mapped.Sendmsg, p.mapped.Recvmsg, p.mapped.Peername,
	} {
		prog.Close() // nil is fine
	}
}
