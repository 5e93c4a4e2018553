package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/bpf"
	"github.com/bothy-os/bothy/netdata/maps"
)

// Hairpin4 and Hairpin6 are the source addresses a pod sees when it reaches itself through
// a Service. Both can collide with nothing: one is the pods' gateway, the other in
// the prefix that RFC 6666 has routers discard. A link-local one would do for IPv6 as well, but
// makes a process that calls back say by which interface.
var (
	Hairpin4 = netip.MustParseAddr("169.254.1.1")
	Hairpin6 = netip.MustParseAddr("100::1")
)

// The source ports of masqueraded connections. They lie outside the range from which
// the node's own sockets take theirs (see the sysctls of the netdata package), so that
// a pod's flow can never take the answers of a host process, and outside the node ports.
const (
	SNATPortMin = 49152
	SNATPortMax = 65535
)

// secondShare is how many times smaller the maps of a node's second family are: it is there for the
// few peers that have nothing else, and most of a map's memory is taken in advance.
const secondShare = 4

// Config is what the programs must know in advance.
type Config struct {
	// Dir is a directory on a bpffs. Maps and links are pinned below it.
	Dir string
	// NodeIPs are the node's addresses on its uplink, at most one per family. Programs are
	// loaded for these families; the first is the one most is expected of.
	NodeIPs []netip.Addr
	// ServiceCIDRs are the ranges of cluster IPs, at most one per family.
	ServiceCIDRs []netip.Prefix
	// PodCIDRs are the ranges of all pods of the cluster, at most one per family: pods see each
	// other's addresses.
	PodCIDRs []netip.Prefix
	// ClusterDNS are served by the node itself and never balanced.
	ClusterDNS []netip.Addr
	// Sizes are the capacities of maps that do not exist yet.
	Sizes maps.Sizes
	// ForceFilter uses cls_bpf filters even where the kernel has tcx.
	ForceFilter bool
}

// Dataplane is a set of verified programs and the maps they use.
type Dataplane struct {
	Tables *maps.Tables

	dir string
	cfg Config
	// programs are those of each family of the node.
	programs map[maps.Family]*programs
	devices  deviceBackend
	log      *slog.Logger
}

// Load opens or creates the maps and verifies the programs. Nothing is attached
// yet, and what is attached already keeps running. It must be called in the
// node's network namespace.
func Load(cfg Config, log *slog.Logger) (*Dataplane, error) {
	// Only kernels before 5.11 charge maps to RLIMIT_MEMLOCK; a refusal to raise it is no harm here.
	if err := rlimit.RemoveMemlock(); err != nil {
		log.Debug("memlock limit left as it is", "err", err)
	}
	sets, err := cfg.sets()
	if err != nil {
		return nil, err
	}
	tables, err := maps.Open(filepath.Join(cfg.Dir, "maps"), sets)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("%w (needs CAP_BPF and CAP_NET_ADMIN, or root)", err)
	}
	if err != nil {
		return nil, err
	}
	d := &Dataplane{Tables: tables, dir: cfg.Dir, cfg: cfg, log: log}
	if err := d.verify(sets); err != nil {
		d.Close()
		return nil, err
	}
	if d.devices, err = chooseBackend(filepath.Join(cfg.Dir, "links"), cfg.ForceFilter); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// sets reads the embedded programs of every family of the node and tells them what
// they must know.
func (c Config) sets() (map[maps.Family]maps.Set, error) {
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	out := map[maps.Family]maps.Set{}
	for i, ip := range c.NodeIPs {
		family := maps.FamilyOf(ip)
		read, write := bpf.LoadIPv4, configure[maps.Addr4]
		if family == maps.IPv6 {
			read, write = bpf.LoadIPv6, configure[maps.Addr6]
		}
		spec, err := read()
		if err != nil {
			return nil, fmt.Errorf("read embedded programs: %w", err)
		}
		if err := write(spec.Variables["cfg"], c, ip, cookie); err != nil {
			return nil, fmt.Errorf("configure programs for %s: %w", family, err)
		}
		sizes := c.Sizes
		if i > 0 {
			sizes.Flows, sizes.Divide = sizes.Flows/secondShare, secondShare
		}
		out[family] = maps.Set{Spec: spec, Sizes: sizes}
	}
	return out, nil
}

// verify has the kernel check the programs of all families, at the same time: it is the longest
// step of a start.
func (d *Dataplane) verify(sets map[maps.Family]maps.Set) error {
	d.programs = map[maps.Family]*programs{}
	var wait sync.WaitGroup
	var errs [2]error
	for family, set := range sets {
		p := &programs{}
		d.programs[family] = p
		wait.Go(func() { errs[family] = p.load(set.Spec, d.Tables.Replacements(family)) })
	}
	wait.Wait()
	return errors.Join(errs[:]...)
}

// Backend is how programs are attached to interfaces: "tcx" or "cls_bpf".
func (d *Dataplane) Backend() string { return d.devices.name() }

// Commit removes what earlier versions left behind. Call it when every
// interface has been attached.
func (d *Dataplane) Commit() error { return d.Tables.Commit() }

// Close gives up the agent's hold on programs and maps. What is attached stays
// attached.
func (d *Dataplane) Close() {
	for _, p := range d.programs {
		p.close()
	}
	d.Tables.Close()
}

// netnsCookie identifies the caller's network namespace the way
// bpf_get_netns_cookie does.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read cookie of the network namespace (kernel 5.14 or newer): %w", err)
	}
	return cookie, nil
}

func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create %s (is it on a bpffs?): %w", dir, err)
	}
	return nil
}
