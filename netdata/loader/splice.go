package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/bothy-os/bothy/netdata/bpf"
	"github.com/bothy-os/bothy/netdata/maps"
)

// spliceDir has the tables of sockets, which live as long as the sockets in them.
const spliceDir = "splice"

// splice is what of one family splices connections.
type splice struct {
	family maps.Family
	// sockets is the table of those that may be spliced.
	sockets           *ebpf.Map
	established, send *ebpf.Program
}

// AttachSplice has connections between pods of this node bypass the TCP stack, if the pods' processes are in
// the cgroup2 directory or below. Connections that exist are left as they are. Policy applies as
// it does to packets.
func (d *Dataplane) AttachSplice(cgroup string) error {
	id, err := cgroupID(cgroup)
	if err != nil {
		return err
	}
	for _, dir := range []string{"links", spliceDir} {
		if err := ensureDir(filepath.Join(d.dir, dir)); err != nil {
			return err
		}
	}
	for family := range d.programs {
		s, err := d.loadSplice(family)
		if err != nil {
			return err
		}
		err = s.attach(cgroup, id, d.splicePin(family))
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// DetachSplice ends what AttachSplice did for new connections. Those that are spliced
// stay so until they end: what is in a socket's queue would be lost otherwise.
func (d *Dataplane) DetachSplice() error {
	var errs []error
	for _, family := range allFamilies {
		errs = append(errs, unpin(d.splicePin(family)), dropUnused(d.spliceTable(family)))
	}
	return errors.Join(errs...)
}

func (d *Dataplane) splicePin(f maps.Family) string {
	return filepath.Join(d.dir, "links", "cgroup-splice"+spliceSuffix(f))
}

func (d *Dataplane) spliceTable(f maps.Family) string {
	return filepath.Join(d.dir, spliceDir, "spliced"+spliceSuffix(f)+"_v1")
}

func spliceSuffix(f maps.Family) string {
	if f == maps.IPv6 {
		return "6"
	}
	return "4"
}

func (d *Dataplane) loadSplice(family maps.Family) (*splice, error) {
	spec, err := d.spliceSpec(family)
	if err != nil {
		return nil, err
	}
	s := &splice{family: family}
	if s.sockets, err = openSockets(d.spliceTable(family), spec.Maps["spliced"]); err != nil {
		return nil, err
	}
	replace := map[string]*ebpf.Map{"spliced": s.sockets}
	for name, m := range d.Tables.Replacements(family) {
		if spec.Maps[name] != nil {
			spec.Maps[name].MaxEntries = m.MaxEntries()
			replace[name] = m
		}
	}
	if err := s.load(spec, replace); err != nil {
		s.close()
		return nil, fmt.Errorf("load the splice for %s (needs CAP_PERFMON and a kernel with BTF beside what the other programs need): %w", family, err)
	}
	return s, nil
}

// spliceSpec reads the embedded programs of a family and tells them what they must know.
func (d *Dataplane) spliceSpec(family maps.Family) (*ebpf.CollectionSpec, error) {
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	read, write := bpf.LoadSplice4, configure[maps.Addr4]
	if family == maps.IPv6 {
		read, write = bpf.LoadSplice6, configure[maps.Addr6]
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	for _, ip := range d.cfg.NodeIPs {
		if maps.FamilyOf(ip) != family {
			continue
		}
		if err := write(spec.Variables["cfg"], d.cfg, ip, cookie); err != nil {
			return nil, fmt.Errorf("configure the splice for %s: %w", family, err)
		}
	}
	return spec, nil
}

func openSockets(pin string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, fmt.Errorf("create the table of spliced sockets: %w", err)
	}
	if err := m.Pin(pin); err != nil {
		m.Close()
		return nil, fmt.Errorf("pin the table of spliced sockets: %w", err)
	}
	return m, nil
}

func (s *splice) load(spec *ebpf.CollectionSpec, replace map[string]*ebpf.Map) error {
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return err
	}
	defer coll.Close()
	s.established, s.send = coll.DetachProgram("splice_established"), coll.DetachProgram("splice_send")
	return nil
}

// attach has messages judged before any socket can be in the table.
func (s *splice) attach(cgroup string, id uint64, pin string) error {
	err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: s.sockets.FD(), Program: s.send, Attach: ebpf.AttachSkMsgVerdict})
	if err != nil {
		return fmt.Errorf("attach the splice for %s to its sockets: %w", s.family, err)
	}
	return attachSocket(cgroup, id, pin, socketHook{"splice", ebpf.AttachCGroupSockOps, s.established})
}

func (s *splice) close() {
	s.sockets.Close()
	s.established.Close() // nil is fine
	s.send.Close()
}

// dropUnused removes the pin of a table of sockets when there are none in it.
func dropUnused(pin string) error {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the table of spliced sockets: %w", err)
	}
	defer m.Close()
	key, err := m.NextKeyBytes(nil)
	if err != nil || key != nil {
		return err
	}
	return os.Remove(pin)
}

// SplicedSockets are the sockets whose messages may bypass the TCP stack, by their own ends as
// conntrack knows them. It walks over all: ask seldom.
func (d *Dataplane) SplicedSockets() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, family := range allFamilies {
		m, err := ebpf.LoadPinnedMap(d.spliceTable(family), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the table of spliced sockets: %w", err)
		}
		ends, err := ownEnds(m)
		m.Close()
		if err != nil {
			return nil, fmt.Errorf("read the table of spliced sockets: %w", err)
		}
		out = append(out, ends...)
	}
	return out, nil
}

// ownEnds reads keys, which are of struct tuple in bpf/src/tables.h.
func ownEnds(m *ebpf.Map) ([]netip.AddrPort, error) {
	addrLen := int(m.KeySize()-8) / 2
	var out []netip.AddrPort
	for key, err := m.NextKeyBytes(nil); ; key, err = m.NextKeyBytes(key) {
		if err != nil || key == nil {
			return out, err
		}
		addr, _ := netip.AddrFromSlice(key[:addrLen]) // 4 and 16 bytes are both fine
		out = append(out, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[2*addrLen:])))
	}
}
