package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/bootstrap/identity"
	"github.com/bothy-os/bothy/bootstrap/paths"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/reconciler"
)

// newTestHall is a hall on a state directory of its own; the machine is called "m".
func newTestHall(t *testing.T) *hall {
	t.Helper()
	dir := t.TempDir()
	id, err := identity.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &hall{
		env: &boot.Environment{Name: "m"}, boot: &v1alpha1.BootConfig{}, log: slog.New(slog.DiscardHandler), changed: make(chan struct{}),
		paths: paths.Paths{StateDir: dir}, identity: func() (*identity.Identity, error) { return id, nil },
	}
}

const stranger = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// siteOf is a commit with these Machines; "own" stands for the machine's identity.
func (h *hall) siteOf(t *testing.T, machines map[string]string) *site {
	t.Helper()
	snap := &reconciler.Snapshot{}
	for name, spec := range machines {
		text := "apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata: {name: " + name + "}\nspec: " + strings.ReplaceAll(spec, "own", h.fingerprint()) + "\n"
		snap.Machines = append(snap.Machines, reconciler.File{Path: name + ".yaml", Data: []byte(text)})
	}
	s, err := decodeSite(snap, "clusters/x", h.env.Name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhoMayRunACommit(t *testing.T) {
	const elsewhere = `{identity: "` + stranger + `", addresses: [192.0.2.1]}`
	leave := func(files ...string) func(t *testing.T, h *hall) {
		return func(t *testing.T, h *hall) {
			t.Helper()
			for _, f := range files {
				file := filepath.Join(h.paths.PKI(), f)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	worker, controlPlane := leave("ca.crt"), leave("ca.crt", "ca.key")
	required := func(_ *testing.T, h *hall) { h.boot.RequireEnrolment = true }
	for name, c := range map[string]struct {
		before   func(t *testing.T, h *hall)
		machines map[string]string
		want     string // "" if it may
	}{
		"a site without Machines":                     {},
		"a site that knows it by name":                {machines: map[string]string{"m": "{labels: {a: b}}"}},
		"a site that knows another by name":           {machines: map[string]string{"x": "{labels: {a: b}}"}},
		"the control plane":                           {machines: map[string]string{"m": `{identity: "own"}`}},
		"a worker":                                    {machines: map[string]string{"x": elsewhere, "m": `{role: worker, identity: "own"}`}},
		"a worker after a restart":                    {before: worker, machines: map[string]string{"x": elsewhere, "m": `{role: worker, identity: "own"}`}},
		"another machine of that name":                {machines: map[string]string{"m": `{identity: "` + stranger + `"}`}, want: "is for the identity " + stranger},
		"a machine that others' site does not know":   {machines: map[string]string{"x": elsewhere}, want: "not enrolled"},
		"one that it knows by name only":              {machines: map[string]string{"x": elsewhere, "m": "{labels: {a: b}}"}, want: "not enrolled"},
		"one that is to be enrolled":                  {before: required, want: "not enrolled"},
		"one that is to be, and is":                   {before: required, machines: map[string]string{"m": `{identity: "own"}`}},
		"a worker whose Machine is gone":              {before: worker, want: "not enrolled"},
		"a worker that should become a control plane": {before: worker, machines: map[string]string{"m": `{identity: "own"}`}, want: "cannot become the control plane"},
		"a control plane that should become a worker": {before: controlPlane, machines: map[string]string{"x": elsewhere, "m": `{role: worker, identity: "own"}`}, want: "cannot become a worker"},
		"a control plane after a restart":             {before: controlPlane},
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHall(t)
			if c.before != nil {
				c.before(t, h)
			}
			err := h.objection(h.siteOf(t, c.machines))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A commit that would end the control plane is refused by it; a worker leaves by one.
func TestCommitThatDropsAMachine(t *testing.T) {
	h := newTestHall(t)
	const other = `{role: worker, identity: "` + stranger + `"}`
	now := h.siteOf(t, map[string]string{"m": `{identity: "own", addresses: [192.0.2.1]}`, "w": other})
	gone := h.siteOf(t, map[string]string{"cp": `{identity: "` + stranger + `"}`})
	if err := h.keepsControlPlane(now, gone); err == nil || !strings.Contains(err.Error(), "would end the control plane") {
		t.Errorf("a control plane: %v", err)
	}
	if err := h.keepsControlPlane(now, h.siteOf(t, map[string]string{"m": `{identity: "own"}`})); err != nil {
		t.Errorf("its worker leaves: %v", err)
	}
	asWorker := h.siteOf(t, map[string]string{"cp": `{identity: "` + stranger + `", addresses: [192.0.2.1]}`, "m": `{role: worker, identity: "own"}`})
	if err := h.keepsControlPlane(asWorker, gone); err != nil {
		t.Errorf("a worker: %v", err)
	}
}

// Workers that come and go restart nothing on a control plane; a control plane that moves is news to a worker.
func TestWhatRestartsASite(t *testing.T) {
	h := newTestHall(t)
	const other = `{role: worker, identity: "` + stranger + `"}`
	alone := h.siteOf(t, map[string]string{"m": `{identity: "own", addresses: [192.0.2.1]}`})
	with := h.siteOf(t, map[string]string{"m": `{identity: "own", addresses: [192.0.2.1]}`, "w": other})
	if !alone.equal(with) {
		t.Error("a worker that joins restarts the control plane")
	}
	if named := h.siteOf(t, map[string]string{"m": "{}"}); !alone.equal(named) {
		t.Error("a control plane that is enrolled restarts")
	}
	at := func(address string) *site {
		return h.siteOf(t, map[string]string{"cp": `{identity: "` + stranger + `", addresses: [` + address + `]}`, "m": `{role: worker, identity: "own"}`})
	}
	if !at("192.0.2.1").equal(at("192.0.2.1")) || at("192.0.2.1").equal(at("192.0.2.2")) {
		t.Error("a worker does not follow its control plane")
	}
}
