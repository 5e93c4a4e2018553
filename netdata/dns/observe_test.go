package dns

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// answering is a plugin that answers with the records given.
func answering(records ...dns.RR) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = records
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
}

func TestObserveLearnsNamesAndCounts(t *testing.T) {
	s := New(Config{}, nil)
	observing.Store(s.observer)
	t.Cleanup(func() { observing.Store(nil) })
	w := watched{answering(
		&dns.CNAME{Hdr: dns.RR_Header{Name: "shop.example.org.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "edge7.cdn.example."},
		&dns.A{Hdr: dns.RR_Header{Name: "edge7.cdn.example.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 7)},
		&dns.AAAA{Hdr: dns.RR_Header{Name: "edge7.cdn.example.", Rrtype: dns.TypeAAAA, Class: dns.ClassINET}, AAAA: net.ParseIP("2001:db8::7")},
	)}
	before := testutil.CollectAndCount(vars.RequestDuration)
	if _, err := w.ServeDNS(t.Context(), &test.ResponseWriter{}, new(dns.Msg).SetQuestion("shop.example.org.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.7", "2001:db8::7"} {
		if got := s.NameOf(netip.MustParseAddr(a)); got != "shop.example.org" {
			t.Errorf("%s is called %q, want the name that was asked for", a, got)
		}
	}
	if got := s.NameOf(netip.MustParseAddr("192.0.2.8")); got != "" {
		t.Errorf("an address nobody asked for is called %q", got)
	}
	if after := testutil.CollectAndCount(vars.RequestDuration); after <= before {
		t.Errorf("%d series of durations before and %d after a query", before, after)
	}
}

// A site that resolves many names does not fill the node's memory.
func TestObserveForgetsTheOldest(t *testing.T) {
	o := newObserver()
	for i := range namesKept + 1 {
		m := &dns.Msg{Answer: []dns.RR{&dns.A{A: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i))}}}
		o.learn("x.example.", m)
	}
	if _, ok := o.names.Get(netip.MustParseAddr("10.0.0.0")); ok || o.names.Len() != namesKept {
		t.Errorf("%d names are kept, want the newest %d", o.names.Len(), namesKept)
	}
}
