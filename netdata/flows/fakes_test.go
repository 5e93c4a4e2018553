package flows

import (
	"net/netip"
	"os"
	"sync"

	"github.com/bothy-os/bothy/netdata/maps"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// fakeNames is a small cluster: two pods, a Service, a node, and a name outside.
type fakeNames struct{}

func (fakeNames) Peer(a netip.Addr) Name {
	return map[string]Name{
		"10.244.1.2":   {Namespace: "shop", Pod: "web-0", Node: "n1"},
		"10.244.1.3":   {Namespace: "shop", Pod: "db-0", Node: "n1"},
		"10.244.2.9":   {Namespace: "ops", Pod: "web-1", Node: "n2"},
		"192.168.50.1": {Node: "n1"},
		"192.0.2.7":    {Host: "example.org"},
	}[a.String()]
}

func (fakeNames) Service(f maps.Frontend) string {
	return map[maps.Frontend]string{
		{Addr: ap("10.96.0.20:5432"), Proto: maps.TCP}:    "shop/db",
		{Addr: ap("192.168.50.1:30080"), Proto: maps.TCP}: "shop/web",
	}[f]
}

// fakeListener gives out what a test puts into events.
type fakeListener struct {
	events chan maps.Event
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	kinds maps.EventKinds
	lost  uint64
	fail  error // what Read returns instead of waiting for Close
}

func newFakeListener(kinds maps.EventKinds) *fakeListener {
	return &fakeListener{events: make(chan maps.Event), closed: make(chan struct{}), kinds: kinds}
}

func (l *fakeListener) Read(e *maps.Event) error {
	select {
	case *e = <-l.events:
		return nil
	case <-l.closed:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.fail != nil {
			return l.fail
		}
		return os.ErrClosed
	}
}

func (l *fakeListener) Want(kinds maps.EventKinds) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kinds = kinds
	return nil
}

func (l *fakeListener) wanted() maps.EventKinds {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kinds
}

func (l *fakeListener) Lost() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, nil
}

func (l *fakeListener) lose(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += n
}

func (l *fakeListener) breakWith(err error) {
	l.mu.Lock()
	l.fail = err
	l.mu.Unlock()
	l.once.Do(func() { close(l.closed) })
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func newFlow(src, dst, asked string) maps.Event {
	e := maps.Event{Kind: maps.EventNew, Tuple: maps.Tuple{Src: ap(src), Dst: ap(dst), Proto: maps.TCP}, TCPFlags: 2}
	if asked != "" {
		e.Asked = ap(asked)
	}
	return e
}

func denied(kind maps.EventKind, reason maps.DropReason, hook maps.Hook, src, dst string) maps.Event {
	return maps.Event{
		Kind: kind, Reason: reason, Hook: hook, TCPFlags: 2,
		Tuple: maps.Tuple{Src: ap(src), Dst: ap(dst), Proto: maps.TCP},
	}
}
