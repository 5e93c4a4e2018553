package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/netdata/bpf"
	"github.com/bothy-os/bothy/netdata/maps"
)

// Hairpin is the source address a pod sees when it reaches itself through a
// Service. It is the pods' gateway, so that they have a route to it, and link-local,
// so that it can collide with nothing.
var Hairpin = netip.MustParseAddr("169.254.1.1")

// The source ports of masqueraded connections. They lie outside the range from which
// the node's own sockets take theirs (see the sysctls of the netdata package), so that
// a pod's flow can never take the answers of a host process, and outside the node ports.
const (
	SNATPortMin = 49152
	SNATPortMax = 65535
)

// Config is what the programs must know in advance.
type Config struct {
	// Dir is a directory on a bpffs. Maps and links are pinned below it.
	Dir string
	// NodeIP is the node's address on its uplink.
	NodeIP netip.Addr
	// ServiceCIDR is the range of cluster IPs.
	ServiceCIDR netip.Prefix
	// PodCIDR is the range of all pods of the cluster: they see each other's addresses.
	PodCIDR netip.Prefix
	// ClusterDNS is served by the node itself and never balanced.
	ClusterDNS netip.Addr
	// Sizes are the capacities of maps that do not exist yet.
	Sizes maps.Sizes
	// ForceFilter uses cls_bpf filters even where the kernel has tcx.
	ForceFilter bool
}

// Dataplane is a set of verified programs and the maps they use.
type Dataplane struct {
	Tables *maps.Tables

	dir     string
	objs    bpf.IPv4Programs
	devices deviceBackend
	log     *slog.Logger
}

// Load opens or creates the maps and verifies the programs. Nothing is attached
// yet, and what is attached already keeps running. It must be called in the
// node's network namespace.
func Load(cfg Config, log *slog.Logger) (*Dataplane, error) {
	// Only kernels before 5.11 charge maps to RLIMIT_MEMLOCK; a refusal to raise it is no harm here.
	if err := rlimit.RemoveMemlock(); err != nil {
		log.Debug("memlock limit left as it is", "err", err)
	}
	spec, err := bpf.LoadIPv4()
	if err != nil {
		return nil, fmt.Errorf("read embedded programs: %w", err)
	}
	cookie, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["cfg"].Set(cfg.constants(cookie)); err != nil {
		return nil, fmt.Errorf("configure programs: %w", err)
	}
	tables, err := maps.Open(filepath.Join(cfg.Dir, "maps"), spec, cfg.Sizes)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{Tables: tables, dir: cfg.Dir, log: log}
	if err := d.verify(spec); err != nil {
		tables.Close()
		return nil, err
	}
	if d.devices, err = chooseBackend(filepath.Join(cfg.Dir, "links"), cfg.ForceFilter); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (c Config) constants(cookie uint64) bpf.IPv4NodeConfig {
	var out bpf.IPv4NodeConfig
	out.NetnsCookie = cookie
	out.Node.Word[0] = maps.Word(c.NodeIP)
	out.Dns.Word[0] = maps.Word(c.ClusterDNS)
	out.ServiceNet.Word[0], out.ServiceMask.Word[0] = netAndMask(c.ServiceCIDR)
	out.PodNet.Word[0], out.PodMask.Word[0] = netAndMask(c.PodCIDR)
	out.Hairpin.Word[0] = maps.Word(Hairpin)
	out.SnatMin, out.SnatMax = SNATPortMin, SNATPortMax
	return out
}

// netAndMask of no range at all is one that holds no address of a packet.
func netAndMask(p netip.Prefix) (network, mask uint32) {
	if !p.IsValid() {
		return 0, ^uint32(0)
	}
	m, _ := netip.MustParseAddr("255.255.255.255").Prefix(p.Bits())
	return maps.Word(p.Masked().Addr()), maps.Word(m.Addr())
}

func (d *Dataplane) verify(spec *ebpf.CollectionSpec) error {
	opts := &ebpf.CollectionOptions{MapReplacements: d.Tables.Replacements()}
	err := spec.LoadAndAssign(&d.objs, opts)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel's verifier refused a program; please report this with `uname -r`: %w\n\t%s", err, strings.Join(verifier.Log, "\n\t"))
	}
	if err != nil {
		return fmt.Errorf("load programs (needs CAP_BPF and CAP_NET_ADMIN, kernel 6.1 or newer): %w", err)
	}
	return nil
}

// Backend is how programs are attached to interfaces: "tcx" or "cls_bpf".
func (d *Dataplane) Backend() string { return d.devices.name() }

// Commit removes what earlier versions left behind. Call it when every
// interface has been attached.
func (d *Dataplane) Commit() error { return d.Tables.Commit() }

// Close gives up the agent's hold on programs and maps. What is attached stays
// attached.
func (d *Dataplane) Close() {
	d.objs.Close()
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
