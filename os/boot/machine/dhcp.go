package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

const (
	// askTimeout and askTries are for one message. On a link without a server they add up
	// to some ten seconds.
	askTimeout = 2 * time.Second
	askTries   = 3
	// leaseDefault is taken where a server says nothing, leaseLeast where it says too
	// little.
	leaseDefault = time.Hour
	leaseLeast   = time.Minute
)

// lease is an address that is the machine's for a while.
type lease struct {
	*nclient4.Lease
	link netlink.Link
}

// ask asks for an address on a link: for the one the machine had, if it had one.
func ask(ctx context.Context, link netlink.Link, before *Uplink) (*Uplink, error) {
	client, err := newClient(link)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }() // a socket
	options := wanted()
	if before != nil && before.Interface == link.Attrs().Name {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(before.Address))))
	}
	l, err := client.Request(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("ask for an address: %w", err)
	}
	return uplinkOf(l, link)
}

func newClient(link netlink.Link) (*nclient4.Client, error) {
	client, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(askTimeout), nclient4.WithRetry(askTries))
	if err != nil {
		return nil, fmt.Errorf("listen for DHCP: %w", err)
	}
	return client, nil
}

func wanted() []dhcpv4.Modifier {
	return []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.OptionNTPServers, dhcpv4.OptionDomainNameServer, dhcpv4.OptionRouter, dhcpv4.OptionSubnetMask)}
}

func uplinkOf(l *nclient4.Lease, link netlink.Link) (*Uplink, error) {
	ack := l.ACK
	bits := 32
	if mask := ack.SubnetMask(); mask != nil {
		bits, _ = mask.Size()
	}
	if !ack.YourIPAddr.IsGlobalUnicast() || bits == 0 {
		return nil, fmt.Errorf("the DHCP server offers %s/%d, which is no address for a machine", ack.YourIPAddr, bits)
	}
	u := &Uplink{Interface: link.Attrs().Name, Address: ack.YourIPAddr.String(), Bits: bits, lease: &lease{l, link}}
	if routers := ack.Router(); len(routers) > 0 {
		u.Gateway = routers[0].String()
	}
	for _, ip := range ack.DNS() {
		u.DNS = append(u.DNS, ip.String())
	}
	for _, ip := range ack.NTPServers() {
		u.NTP = append(u.NTP, ip.String())
	}
	return u, nil
}

// keep renews the lease for as long as the machine runs. An address whose lease could not
// be renewed stays: without it the site would be gone, and nobody else is likely to have
// it. One that the server takes back is changed at the next start of the machine, because
// Kubernetes knows the node by it.
func (n *network) keep(ctx context.Context, u *Uplink) {
	if u.lease == nil {
		return
	}
	for ctx.Err() == nil {
		select {
		case <-time.After(max(renewal(u.lease.ACK), leaseLeast)):
		case <-ctx.Done():
			return
		}
		if err := u.lease.renew(ctx); err != nil {
			n.log.Warn("the lease of the address was not renewed, will try again", "address", u.Address, "err", err)
		}
	}
}

// renewal is the time after which a lease is to be renewed: T1 of RFC 2131.
func renewal(ack *dhcpv4.DHCPv4) time.Duration {
	return ack.IPAddressRenewalTime(ack.IPAddressLeaseTime(leaseDefault) / 2)
}

func (l *lease) renew(ctx context.Context) error {
	client, err := newClient(l.link)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // a socket
	renewed, err := client.Renew(ctx, l.Lease, wanted()...)
	var nak *nclient4.ErrNak
	if errors.As(err, &nak) {
		return fmt.Errorf("the DHCP server does not want this machine to have its address any longer: %w", err)
	}
	if err != nil {
		return err
	}
	l.Lease = renewed
	return nil
}
