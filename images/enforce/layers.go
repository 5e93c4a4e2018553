package enforce

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"google.golang.org/grpc"

	"github.com/bothy-os/bothy/images/gate"
)

// maxMaking bounds the layers in the making that are remembered.
const maxMaking = 1024

// making is what clients of containerd make layers of. A layer's name is made of
// the hashes of all layers below and its own, and containers are judged by it:
// a client may give that name only to what containerd itself unpacked from a
// layer with that hash. Layers that containerd unpacks on its own do not come by
// here.
type making struct {
	mu sync.Mutex
	// layers is by what is mounted to write to it, which no two have in common.
	layers map[string]*inMaking
}

// inMaking is a layer in the making.
type inMaking struct {
	key, parent string
	// begun counts what was unpacked into it, diffs are the hashes of what came
	// of it: what fails half way has left something.
	begun int
	diffs []string
}

func newMaking() *making { return &making{layers: map[string]*inMaking{}} }

// becomesLayer says that a snapshot is made to become a layer.
func becomesLayer(key string) bool {
	return strings.HasPrefix(key, snapshots.UnpackKeyPrefix+"-")
}

// place tells apart what is mounted.
func place(mounts []mount.Mount) string {
	var b strings.Builder
	for _, m := range mounts {
		fmt.Fprintf(&b, "%q %q %q %q\n", m.Type, m.Source, m.Target, m.Options)
	}
	return b.String()
}

func (m *making) begin(key, parent string, mounts []mount.Mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.layers) >= maxMaking { // given up, or committed
		clear(m.layers)
	}
	m.layers[place(mounts)] = &inMaking{key: key, parent: parent}
}

// unpack notes that a layer is about to be unpacked at a place.
func (m *making) unpack(at string) (*inMaking, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.layers[at]
	if l == nil {
		return nil, errors.New("image policy: clients of containerd may unpack into layers in the making, and nowhere else")
	}
	l.begun++
	return l, nil
}

// unpacked notes what came of it.
func (m *making) unpacked(l *inMaking, diff string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.diffs = append(l.diffs, diff)
}

// committed says whether a snapshot is what its name says.
func (m *making) committed(name, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at, l := range m.layers {
		if l.key == key {
			delete(m.layers, at)
			return l.is(name)
		}
	}
	return fmt.Errorf("image policy: it is not known what %s was made of; unpack the layer again", name)
}

// is says whether what was made deserves the name.
func (l *inMaking) is(name string) error {
	if l.begun != 1 || len(l.diffs) != 1 {
		return fmt.Errorf("image policy: %d layers were unpacked into %s, and it is one", l.begun, name)
	}
	chain := digest.Digest(l.diffs[0])
	if l.parent != "" {
		chain = identity.ChainID([]digest.Digest{digest.Digest(l.parent), chain})
	}
	if chain.String() != name {
		return fmt.Errorf("image policy: the layer is %s and not %s", chain, name)
	}
	return nil
}

// diffs guards the unpacking of layers by clients.
type diffs struct {
	diffapi.DiffClient
	guard *Guard
}

// Apply unpacks a layer.
func (d *diffs) Apply(ctx context.Context, req *diffapi.ApplyRequest, opts ...grpc.CallOption) (*diffapi.ApplyResponse, error) {
	if !d.guard.cfg.Gate.InForce() {
		return d.DiffClient.Apply(ctx, req, opts...)
	}
	layer, err := d.guard.making.unpack(place(mount.FromProto(req.GetMounts())))
	if err != nil {
		return nil, denied(d.guard.cfg.Gate.Refuse(gate.Layer, req.GetDiff().GetDigest(), err))
	}
	resp, err := d.DiffClient.Apply(ctx, req, opts...)
	if err == nil {
		d.guard.making.unpacked(layer, resp.GetApplied().GetDigest())
	}
	return resp, err
}
