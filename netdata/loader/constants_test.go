package loader

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/bothy-os/bothy/netdata/bpf"
	"github.com/bothy-os/bothy/netdata/maps"
)

// The generated types are what the compiler of the programs sees.
func TestConstantsHaveTheLayoutOfThePrograms(t *testing.T) {
	for ours, want := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[constants[maps.Addr4]](): reflect.TypeFor[bpf.IPv4NodeConfig](),
		reflect.TypeFor[constants[maps.Addr6]](): reflect.TypeFor[bpf.IPv6NodeConfig](),
	} {
		for i := range want.NumField() {
			w := want.Field(i)
			if w.Name == "_" {
				continue
			}
			o, ok := ours.FieldByName(w.Name)
			if !ok || o.Offset != w.Offset || o.Type.Size() != w.Type.Size() {
				t.Errorf("%s: field %s differs from that of %s", ours, w.Name, want)
			}
		}
	}
}

func TestConstants(t *testing.T) {
	cfg := Config{
		NodeIPs:      []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/108")},
		ClusterDNS:   []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::a")},
	}
	sets, err := cfg.sets()
	if err != nil {
		t.Fatal(err)
	}
	var four bpf.IPv4NodeConfig
	must(t, sets[maps.IPv4].Spec.Variables["cfg"].Get(&four))
	for what, got := range map[string]netip.Addr{
		"192.0.2.1": maps.FromWords(four.Node.Word), "10.96.0.10": maps.FromWords(four.Dns.Word), "169.254.1.1": maps.FromWords(four.Hairpin.Word),
		"10.96.0.0": maps.FromWords(four.ServiceNet.Word), "255.240.0.0": maps.FromWords(four.ServiceMask.Word),
	} {
		if got.String() != what {
			t.Errorf("got %s, want %s", got, what)
		}
	}
	var six bpf.IPv6NodeConfig
	must(t, sets[maps.IPv6].Spec.Variables["cfg"].Get(&six))
	for what, got := range map[string]netip.Addr{
		"2001:db8::1": maps.FromWords(six.Node.Word), "fd00:96::a": maps.FromWords(six.Dns.Word), "100::1": maps.FromWords(six.Hairpin.Word),
		"fd00:96::": maps.FromWords(six.ServiceNet.Word), "ffff:ffff:ffff:ffff:ffff:ffff:fff0:0": maps.FromWords(six.ServiceMask.Word),
	} {
		if got.String() != what {
			t.Errorf("got %s, want %s", got, what)
		}
	}
	if six.SnatMin != SNATPortMin || six.SnatMax != SNATPortMax || six.NetnsCookie == 0 {
		t.Errorf("ports %d-%d, cookie %d", six.SnatMin, six.SnatMax, six.NetnsCookie)
	}
}

// A family without a service range must not take every address for a service's.
func TestWithoutServiceRangeNothingIsInIt(t *testing.T) {
	sets, err := Config{NodeIPs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}.sets()
	if err != nil {
		t.Fatal(err)
	}
	var six bpf.IPv6NodeConfig
	must(t, sets[maps.IPv6].Spec.Variables["cfg"].Get(&six))
	if got := maps.FromWords(six.ServiceMask.Word).String(); got != "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" {
		t.Errorf("mask is %s", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
