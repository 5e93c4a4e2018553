package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
)

// Uplink is how the machine reaches others. It is kept, so that a machine whose network
// is down starts with what it had.
type Uplink struct {
	// Interface has Address, with a prefix of Bits.
	Interface string `json:"interface"`
	Address   string `json:"address"`
	Bits      int    `json:"bits"`
	// Gateway is empty where there is only the own network.
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns,omitempty"`
	NTP     []string `json:"ntp,omitempty"`

	lease *lease
}

// uplinkFile keeps the last one.
var uplinkFile = filepath.Join(stateDir, "uplink.json")

// patience is how long a machine that had a network waits for it before it starts with
// the address it had. Switches take most of a minute to forward after a link came up.
const patience = time.Minute

// network brings up the uplink.
type network struct {
	log     *slog.Logger
	want    v1alpha1.BootNetwork
	changed <-chan struct{}
	screen  *screen
	// trial says that the uplink has to prove itself: it is not the one to start with when
	// there is no other.
	trial bool
}

// up returns once the machine has an address.
func (n *network) up(ctx context.Context) (*Uplink, error) {
	if err := setUp("lo"); err != nil {
		return nil, err
	}
	if n.want.Address != "" {
		return n.static(ctx)
	}
	u, err := n.dynamic(ctx)
	if err != nil {
		return nil, err
	}
	u.DNS = append(slices.Clone(n.want.DNS), u.DNS...)
	if n.trial {
		return u, nil
	}
	return u, n.remember(u)
}

// static gives the interface the address that the boot configuration says.
func (n *network) static(ctx context.Context) (*Uplink, error) {
	prefix, err := netip.ParsePrefix(n.want.Address)
	if err != nil {
		return nil, fmt.Errorf("the address of the uplink needs the length of its prefix, as in 192.0.2.10/24: %w", err)
	}
	link, err := n.awaitLink(ctx)
	if err != nil {
		return nil, err
	}
	u := &Uplink{
		Interface: link.Attrs().Name, Address: prefix.Addr().String(), Bits: prefix.Bits(),
		Gateway: n.want.Gateway, DNS: n.want.DNS,
	}
	return u, u.configure(link)
}

// awaitLink returns the wanted interface, or the first that there is.
func (n *network) awaitLink(ctx context.Context) (netlink.Link, error) {
	for {
		links, err := n.candidates()
		if err != nil {
			return nil, err
		}
		if len(links) > 0 {
			return links[0], nil
		}
		if n.trial {
			_, err := findLink(n.want.Interface)
			return nil, fmt.Errorf("%s: %w", n.want.Interface, err)
		}
		n.complain("there is no network interface"+n.wanted(), "check the cable, and network.interface in the boot configuration")
		select {
		case <-n.changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (n *network) wanted() string {
	if n.want.Interface == "" {
		return ""
	}
	return " " + n.want.Interface
}

func (n *network) complain(problem, next string) {
	if n.trial {
		return // the machine is not kept from anything: it has another uplink to go back to
	}
	n.screen.set(func(s *state) { s.problem, s.next = problem, next })
}

// dynamic asks for an address on every interface that has a link, again and again.
func (n *network) dynamic(ctx context.Context) (*Uplink, error) {
	var kept *Uplink
	if !n.trial {
		kept = n.kept()
	}
	var giveUp <-chan time.Time
	if kept != nil {
		giveUp = time.After(patience)
	}
	for {
		links, err := n.candidates()
		if err != nil {
			return nil, err
		}
		var errs []error
		for _, link := range links {
			u, err := ask(ctx, link, kept)
			if err == nil {
				n.complain("", "")
				return u, u.configure(link)
			}
			errs = append(errs, fmt.Errorf("%s: %w", link.Attrs().Name, err))
		}
		if len(links) == 0 && n.trial {
			_, err := findLink(n.want.Interface)
			return nil, fmt.Errorf("%s: %w", n.want.Interface, err)
		}
		if len(links) == 0 {
			errs = append(errs, errors.New("there is no network interface"+n.wanted()))
		}
		n.complain("no address: "+errors.Join(errs...).Error(), "check the cable and the DHCP server, or give network.address in the boot configuration")
		select {
		case <-giveUp:
			return n.asBefore(links, kept)
		case <-n.changed:
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// retryAfter is the pause between two rounds of asking.
const retryAfter = 3 * time.Second

// asBefore takes the address that the machine had when it last had one.
func (n *network) asBefore(links []netlink.Link, kept *Uplink) (*Uplink, error) {
	n.log.Warn("no answer from a DHCP server, going on with the last address", "address", kept.Address, "interface", kept.Interface)
	for _, link := range links {
		if link.Attrs().Name == kept.Interface {
			return kept, kept.configure(link)
		}
	}
	return nil, fmt.Errorf("interface %s, which this machine had its address on, is gone", kept.Interface)
}

// kept returns the last uplink, or nil if there is none that fits the configuration.
func (n *network) kept() *Uplink {
	u := &Uplink{}
	if err := durable.ReadJSON(uplinkFile, u); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			n.log.Warn("the last address is not known", "err", err)
		}
		return nil
	}
	return u
}

func (n *network) remember(u *Uplink) error {
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	if _, err := durable.WriteFileIfChanged(uplinkFile, data, 0o600); err != nil {
		return fmt.Errorf("keep the address: %w", err)
	}
	return nil
}

// resolvConf is the resolver configuration for servers.
func resolvConf(servers []string) string {
	var b strings.Builder
	b.WriteString("# Made by bothy from the boot configuration, the repository and DHCP.\n")
	for _, s := range servers {
		if net.ParseIP(s) != nil {
			b.WriteString("nameserver " + s + "\n")
		}
	}
	return b.String()
}
