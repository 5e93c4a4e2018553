package v1alpha1

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// SystemSpec is what the operating system of a machine is set to. In a Cluster it is for all
// machines of the site; what a Machine says goes before it. A change is tried: one that costs
// the machine its API or its way to the repository is undone.
type SystemSpec struct {
	// Sysctls are settings of the kernel by their names in /proc/sys, with dots or
	// slashes, such as net.ipv4.tcp_keepalive_time. Those of Cluster and Machine are
	// taken together.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Modules of the kernel that are loaded beside those that hardware asks for. Those of
	// Cluster and Machine are taken together. One that left the list stays loaded until the
	// machine starts again.
	Modules []string `json:"modules,omitempty"`
	// KernelArguments are arguments that the kernel has to be started with. Those of Cluster
	// and Machine are taken together. They are part of the boot file, which is measured and
	// signed, and so come with an image that was built with them; until the machine runs one
	// they are listed as missing.
	KernelArguments []string `json:"kernelArguments,omitempty"`
	// DNS are the servers that the machine asks for names. Default: those of the boot
	// configuration, then those of DHCP.
	DNS []string `json:"dns,omitempty"`
	// NTP are the servers that it asks for the time, by name or address. Default: those of
	// the boot configuration, then those of DHCP.
	NTP []string `json:"ntp,omitempty"`
	// RevertAfter is how long a change may take to prove that the machine still has its
	// API and its repository; 30s to 1h. Default 5m.
	RevertAfter Duration `json:"revertAfter,omitempty"`
}

// MachineSystemSpec is a SystemSpec with what only one machine can have.
type MachineSystemSpec struct {
	SystemSpec `json:",inline"`
	// Hostname is what the machine calls itself. Default: the name of the node, which
	// stays what it is.
	Hostname string `json:"hostname,omitempty"`
	// Interfaces are network interfaces beside the one that the boot configuration brings
	// up; with uplink, instead of it.
	Interfaces []InterfaceSpec `json:"interfaces,omitempty"`
	// Disks are further disks for data.
	Disks []DiskSpec `json:"disks,omitempty"`
}

// InterfaceSpec is a network interface.
type InterfaceSpec struct {
	// Name of the interface, such as eth1, or its hardware address.
	Name string `json:"name"`
	// VLAN is the tag (IEEE 802.1Q) of the network on it; 0 for none.
	VLAN int `json:"vlan,omitempty"`
	// Uplink says that the node's address is the first one of this interface. At most one
	// can be; without one the uplink is the boot configuration's.
	Uplink bool `json:"uplink,omitempty"`
	// DHCP asks for an address. Only the uplink takes routes and servers from the answer.
	DHCP bool `json:"dhcp,omitempty"`
	// Addresses with the lengths of their prefixes, such as 192.0.2.10/24.
	Addresses []string `json:"addresses,omitempty"`
	// Gateway is the way to all other networks; for the uplink only.
	Gateway string `json:"gateway,omitempty"`
	// Routes to some other networks.
	Routes []RouteSpec `json:"routes,omitempty"`
	// MTU in bytes; 0 leaves it.
	MTU int `json:"mtu,omitempty"`
}

// RouteSpec is a way to a network.
type RouteSpec struct {
	// To is a range such as 198.51.100.0/24, Via the address of the router.
	To  string `json:"to"`
	Via string `json:"via"`
}

// DiskSpec is a further disk. A blank one gets a file system; one with anything else than
// ext4 on it is left alone.
type DiskSpec struct {
	// Name of the directory below /var/lib/bothy/disks where it is mounted.
	Name string `json:"name"`
	// Serial is the serial number that the disk reports.
	Serial string `json:"serial,omitempty"`
	// Path is the device, such as /dev/nvme1n1, where disks have no serial numbers. Names
	// of devices can change from one start to the next.
	Path string `json:"path,omitempty"`
}

const defaultRevertAfter = 5 * time.Minute

// System is what the operating system of a machine is set to by a site: what the machine
// says, before what the cluster says. Both must be valid.
func System(c *Cluster, m *Machine) MachineSystemSpec {
	all, own := c.Spec.System, m.Spec.System
	out := own
	out.Sysctls = map[string]string{}
	for _, from := range []map[string]string{all.Sysctls, own.Sysctls} {
		for name, value := range from {
			out.Sysctls[SysctlPath(name)] = value
		}
	}
	out.Modules = union(all.Modules, own.Modules)
	out.KernelArguments = union(all.KernelArguments, own.KernelArguments)
	if len(out.DNS) == 0 {
		out.DNS = all.DNS
	}
	if len(out.NTP) == 0 {
		out.NTP = all.NTP
	}
	setDefault(&out.RevertAfter.Duration, all.RevertAfter.Duration)
	return out
}

// union keeps the order, and the first of what is twice.
func union(lists ...[]string) []string {
	var out []string
	for _, v := range slices.Concat(lists...) {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// SysctlPath is the file of a sysctl below /proc/sys. As with sysctl(8), a name whose
// first separator is a dot has slashes for dots that are part of a name.
func SysctlPath(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '/' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

var (
	sysctlName     = regexp.MustCompile(`^[a-z][a-z0-9_-]*([./][A-Za-z0-9_:.-]+)+$`)
	moduleName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	kernelArgument = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*(=[!-~]*)?$`)
	interfaceName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,14}$`)
	devicePath     = regexp.MustCompile(`^/dev/[A-Za-z0-9][A-Za-z0-9_/-]*$`)
	plainText      = regexp.MustCompile(`^[ -~]+$`)
)

// keptSysctls are those that bothy itself depends on, or that cannot be undone, by pattern,
// and why they cannot be set.
var keptSysctls = map[string]string{
	"kernel/panic":                     "a machine that nobody is near must start again by itself",
	"kernel/panic_on_oops":             "a machine that nobody is near must start again by itself",
	"kernel/ctrl-alt-del":              "process 1 handles it",
	"kernel/modprobe":                  "process 1 is the helper of the kernel",
	"kernel/hotplug":                   "process 1 hears of devices otherwise",
	"kernel/core_pattern":              "it names a program that the kernel starts",
	"kernel/usermodehelper/*":          "it decides what the kernel may start",
	"kernel/modules_disabled":          "it could not be undone",
	"kernel/kexec_load_disabled":       "it could not be undone",
	"kernel/unprivileged_bpf_disabled": "it could not be undone",
	"kernel/hostname":                  "write spec.system.hostname",
	"kernel/domainname":                "nothing uses it",
	"net/ipv4/ip_forward":              "pods need it",
	"net/ipv4/conf/*/forwarding":       "pods need it",
	"net/ipv6/conf/*/forwarding":       "pods need it",
	"vm/overcommit_memory":             "the kubelet wants it as it is",
}

// keptArguments are arguments of the kernel, or the beginnings of some if they end in a
// dot, that decide what is started at all.
var keptArguments = []string{
	"bothy.", "root", "rootflags", "rootfstype", "init", "rdinit", "initrd", "panic", "oops", "module.", "lockdown", "ima_", "dm-mod.", "dm_verity.",
	"ro", "rw", "nomodule", "security", "lsm", "single",
}

func (s *SystemSpec) validate(p *problems, at string) {
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.Sysctls)) {
		field, file := at+".sysctls."+name, SysctlPath(name)
		if !sysctlName.MatchString(name) || strings.Contains(file, "..") {
			p.add(field, "write it like net.ipv4.tcp_keepalive_time", "%q is not the name of a sysctl", name)
			continue
		}
		if other, twice := seen[file]; twice {
			p.add(field, "keep one of them", "is the same as %s", other)
		}
		seen[file] = name
		for pattern, why := range keptSysctls {
			if kept, err := path.Match(pattern, file); err == nil && kept {
				p.add(field, "remove it", "cannot be set: %s", why)
			}
		}
		if v := s.Sysctls[name]; !plainText.MatchString(v) || len(v) > 256 {
			p.add(field, "write it in one line", "%q is not a value", v)
		}
	}
	for i, m := range s.Modules {
		if !moduleName.MatchString(m) {
			p.add(fmt.Sprintf("%s.modules[%d]", at, i), "", "%q is not the name of a module", m)
		}
	}
	s.validateArguments(p, at)
	for i, a := range s.DNS {
		if !isAddress(a) {
			p.add(fmt.Sprintf("%s.dns[%d]", at, i), "", "%q is not an IP address", a)
		}
	}
	for i, a := range s.NTP {
		if !isAddress(a) && !dnsSubdomain.MatchString(a) {
			p.add(fmt.Sprintf("%s.ntp[%d]", at, i), "", "%q is neither an IP address nor a name", a)
		}
	}
	if d := s.RevertAfter.Duration; d != 0 && (d < 30*time.Second || d > time.Hour) {
		p.add(at+".revertAfter", "write a duration such as 5m", "must be 30s to 1h, not %s", d)
	}
}

// argumentsSize is how long all arguments together may be: the kernel's limit is 2048
// characters, some of which are the boot file's own.
const argumentsSize = 1024

func (s *SystemSpec) validateArguments(p *problems, at string) {
	size := 0
	for i, a := range s.KernelArguments {
		field := fmt.Sprintf("%s.kernelArguments[%d]", at, i)
		size += len(a) + 1
		if !kernelArgument.MatchString(a) || strings.ContainsAny(a, `"'`) {
			p.add(field, "write one argument without spaces or quotes", "%q is not an argument of the kernel", a)
			continue
		}
		name, _, _ := strings.Cut(a, "=")
		for _, kept := range keptArguments {
			if name == kept || strings.HasSuffix(kept, ".") && strings.HasPrefix(name, kept) || strings.HasSuffix(kept, "_") && strings.HasPrefix(name, kept) {
				p.add(field, "remove it", "%s decides what is started, which the boot file says", name)
			}
		}
	}
	if size > argumentsSize {
		p.add(at+".kernelArguments", "", "is longer than %d characters", argumentsSize)
	}
}

func (s *MachineSystemSpec) validate(p *problems, at string) {
	s.SystemSpec.validate(p, at)
	if s.Hostname != "" && (!dnsSubdomain.MatchString(s.Hostname) || len(s.Hostname) > 63) {
		p.add(at+".hostname", "use lower-case letters, digits and dashes, at most 63", "%q is not a host name", s.Hostname)
	}
	uplink := -1
	networks := map[string]int{}
	for i := range s.Interfaces {
		n := &s.Interfaces[i]
		field := fmt.Sprintf("%s.interfaces[%d]", at, i)
		n.validate(p, field)
		key := fmt.Sprintf("%s.%d", n.Name, n.VLAN)
		if first, twice := networks[key]; twice {
			p.add(field+".name", "put what belongs to it into one entry", "%s is already that of interfaces[%d]", n.Name, first)
		}
		networks[key] = i
		if n.Uplink && uplink >= 0 {
			p.add(field+".uplink", "keep one of them", "interfaces[%d] is the uplink already", uplink)
		}
		if n.Uplink {
			uplink = i
		}
	}
	validateDisks(p, at, s.Disks)
}

func (n *InterfaceSpec) validate(p *problems, at string) {
	if _, err := net.ParseMAC(n.Name); err != nil && !interfaceName.MatchString(n.Name) {
		p.add(at+".name", "write it like eth1, or its hardware address", "%q is not the name of a network interface", n.Name)
	}
	if n.VLAN < 0 || n.VLAN > 4094 {
		p.add(at+".vlan", "use 1 to 4094, or 0 for none", "%d is not a VLAN", n.VLAN)
	}
	if n.MTU != 0 && (n.MTU < 1280 || n.MTU > 65535) {
		p.add(at+".mtu", "use 1280 to 65535, or 0 to leave it", "%d is not usable", n.MTU)
	}
	if n.DHCP && len(n.Addresses) > 0 {
		p.add(at+".dhcp", "keep one of them", "cannot be true beside addresses")
	}
	if n.Uplink && !n.DHCP && len(n.Addresses) == 0 {
		p.add(at+".addresses", "write an address such as 192.0.2.10/24, or dhcp: true", "is empty, but the node's address is this interface's")
	}
	for i, a := range n.Addresses {
		if prefix, err := netip.ParsePrefix(a); err != nil || !usableAddress(prefix.Addr()) {
			p.add(fmt.Sprintf("%s.addresses[%d]", at, i), "write it like 192.0.2.10/24", "%q is not an address with the length of its prefix", a)
		}
	}
	switch {
	case n.Gateway == "":
	case !isAddress(n.Gateway):
		p.add(at+".gateway", "", "%q is not an IP address", n.Gateway)
	case !n.Uplink:
		p.add(at+".gateway", "write routes, or uplink: true", "is for the uplink only")
	case n.DHCP:
		p.add(at+".gateway", "remove it, or write addresses", "is DHCP's to say")
	}
	for i, r := range n.Routes {
		field := fmt.Sprintf("%s.routes[%d]", at, i)
		to, err := netip.ParsePrefix(r.To)
		switch {
		case err != nil || to != to.Masked():
			p.add(field+".to", `write a range such as "198.51.100.0/24"`, "%q is not an address range", r.To)
		case to.Bits() == 0:
			p.add(field+".to", "write gateway", "a way to everything is the uplink's")
		}
		if via, err := netip.ParseAddr(r.Via); err != nil || to.IsValid() && via.Is4() != to.Addr().Is4() {
			p.add(field+".via", "", "%q is not an IP address of the same family", r.Via)
		}
	}
}

func usableAddress(a netip.Addr) bool {
	return a.IsGlobalUnicast() && a.Zone() == "" && !a.Is4In6()
}

func validateDisks(p *problems, at string, disks []DiskSpec) {
	names, selectors := map[string]int{}, map[string]int{}
	for i, d := range disks {
		field := fmt.Sprintf("%s.disks[%d]", at, i)
		if !dnsLabel.MatchString(d.Name) {
			p.add(field+".name", "use lower-case letters, digits and dashes", "%q is not a valid name", d.Name)
		}
		if first, twice := names[d.Name]; twice {
			p.add(field+".name", "give each disk its own", "%s is already that of disks[%d]", d.Name, first)
		}
		names[d.Name] = i
		switch {
		case (d.Serial == "") == (d.Path == ""):
			p.add(field+".serial", "write one of serial and path", "say which disk by its serial number or by its path, and by one of them only")
		case d.Path != "" && (!devicePath.MatchString(d.Path) || path.Clean(d.Path) != d.Path):
			p.add(field+".path", "write it like /dev/nvme1n1", "%q is not the path of a device", d.Path)
		case d.Serial != "" && !plainText.MatchString(d.Serial):
			p.add(field+".serial", "", "%q is not a serial number", d.Serial)
		}
		if first, twice := selectors[d.Serial+"\n"+d.Path]; twice {
			p.add(field, "keep one of them", "is the same disk as disks[%d]", first)
		}
		selectors[d.Serial+"\n"+d.Path] = i
	}
}

func (s *DiskSelector) validate(p *problems, at string) {
	if s.Path != "" && (!devicePath.MatchString(s.Path) || path.Clean(s.Path) != s.Path) {
		p.add(at+".path", "write it like /dev/nvme0n1", "%q is not the path of a device", s.Path)
	}
	if s.MinGiB < 0 || s.MaxGiB < 0 || s.MaxGiB > 0 && s.MinGiB > s.MaxGiB {
		p.add(at+".minGiB", "write sizes in GiB, the smaller one here", "no disk has %d to %d GiB", s.MinGiB, s.MaxGiB)
	}
	if s.Pick != "" {
		oneOf(p, at+".pick", s.Pick, PickSmallest, PickLargest)
	}
}
