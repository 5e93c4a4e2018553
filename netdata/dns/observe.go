package dns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/plugin/metrics/vars"
	"github.com/coredns/coredns/plugin/pkg/rcode"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"k8s.io/utils/lru"
)

// observeDirective is how the Corefile names the observer.
const observeDirective = "bothy_observe"

// CoreDNS finds plugins in a table of the process and hands them nothing but the
// text of the Corefile. So what observes is package state, like CoreDNS itself.
var (
	observing       atomic.Pointer[observer]
	registerObserve = sync.OnceFunc(func() {
		before := slices.Index(dnsserver.Directives, "errors")
		dnsserver.Directives = slices.Insert(dnsserver.Directives, before, observeDirective)
		plugin.Register(observeDirective, func(c *caddy.Controller) error {
			dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
				return watched{next}
			})
			return nil
		})
	})
)

// namesKept bounds how many outside addresses have names.
const namesKept = 1024

// observer remembers by which names addresses were asked for.
type observer struct {
	names *lru.Cache
}

func newObserver() *observer { return &observer{names: lru.New(namesKept)} }

// NameOf is the name by which a pod or the node last asked for an address outside
// the cluster, "" if nobody did or it was long ago.
func (s *Server) NameOf(a netip.Addr) string {
	name, ok := s.observer.names.Get(a)
	if !ok {
		return ""
	}
	return name.(string)
}

// learn reads the addresses of an answer. The name is that of the question: behind it may be
// several aliases, which say less.
func (o *observer) learn(question string, m *dns.Msg) {
	name := strings.TrimSuffix(question, ".")
	for _, rr := range m.Answer {
		var raw []byte
		switch rr := rr.(type) {
		case *dns.A:
			raw = rr.A.To4()
		case *dns.AAAA:
			raw = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			o.names.Add(a, name)
		}
	}
}

// watched is the plugin: it counts queries the way CoreDNS's own metrics plugin does, without the
// listener that one brings along, and shows answers to the observer.
type watched struct {
	next plugin.Handler
}

// Name implements plugin.Handler.
func (watched) Name() string { return observeDirective }

// ServeDNS implements plugin.Handler.
func (w watched) ServeDNS(ctx context.Context, rw dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: rw, Req: r}
	size := r.Len()
	question := state.Name()
	recorder := metrics.NewRecorder(rw)
	status, err := plugin.NextOrFailure(w.Name(), w.next, ctx, recorder, r)
	code := recorder.Rcode
	if !plugin.ClientWrite(status) {
		code = status // CoreDNS writes the answer itself, with this code
	}
	vars.Report(metrics.WithServer(ctx), state, ".", metrics.WithView(ctx), rcode.ToString(code), recorder.Plugin,
		recorder.Len, recorder.Start, vars.WithOriginalReqSize(size))
	if o := observing.Load(); o != nil && recorder.Msg != nil && len(recorder.Msg.Answer) > 0 {
		o.learn(question, recorder.Msg)
	}
	return status, err
}
