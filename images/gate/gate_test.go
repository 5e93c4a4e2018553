package gate_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/images/signatures"
	"github.com/bothy-os/bothy/images/verify"
	"github.com/bothy-os/bothy/internal/cosign"
	"github.com/bothy-os/bothy/internal/cosign/cosigntest"
)

var (
	digest = "sha256:" + strings.Repeat("11", 32)
	image  = verify.Image{Name: "example.org/app:1", Digests: []string{digest}}
)

type site struct {
	*gate.Gate
	t     testing.TB
	file  string
	key   *cosigntest.Key
	store *signatures.Store
}

func newSite(t testing.TB) *site {
	dir := t.TempDir()
	s := &site{t: t, file: filepath.Join(dir, "policy.json"), key: cosigntest.NewKey(t), store: signatures.NewStore(filepath.Join(dir, "signatures"))}
	s.Gate = gate.New(gate.Config{File: s.file, Signatures: s.store, Layouts: []string{filepath.Join(dir, "layout")}, Log: slog.New(slog.DiscardHandler)})
	return s
}

func (s *site) write(commit string, files policy.Files) {
	s.t.Helper()
	if err := gate.Write(s.file, commit, files); err != nil {
		s.t.Fatal(err)
	}
}

// byKey demands a signature by a key for everything.
func byKey(t testing.TB, k *cosigntest.Key) policy.Files {
	t.Helper()
	quoted, err := json.Marshal(string(k.PEM(t)))
	if err != nil {
		t.Fatal(err)
	}
	return policy.Files{policy.File: []byte("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"**\"}]\n  authorities: [{key: {data: " + string(quoted) + "}}]\n")}
}

func (s *site) sign(k *cosigntest.Key) {
	s.t.Helper()
	payload := cosigntest.Payload(digest)
	if err := s.store.Add(&cosign.Signatures{Digest: digest, Payloads: []cosign.Attached{{Name: "x", Content: payload, Annotations: k.Annotations(s.t, payload)}}}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) check(want string) {
	s.t.Helper()
	err := s.Check(gate.Container, image)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		s.t.Errorf("%v, want %q", err, want)
	}
}

// TestFailsClosed: what cannot be known is denied.
func TestFailsClosed(t *testing.T) {
	s := newSite(t)
	s.check("no image policy state is there")
	if !s.InForce() {
		t.Error("a gate without a state lets everything through")
	}
	for _, text := range []string{"", "{", `{"commit":"x","files":{"trust/images.yaml":""}}`, `{"files":{}}`} {
		if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.check("nothing new may run")
	}
	if st := s.Status(); st.Error == "" || st.Denied[gate.Container] != 5 || st.LastDenial == nil {
		t.Errorf("%+v", st)
	}
}

// TestFollowsTheCommit: a policy comes and goes with commits, at once.
func TestFollowsTheCommit(t *testing.T) {
	s := newSite(t)
	s.write("one", nil)
	s.check("")
	if s.InForce() {
		t.Error("a site without a policy has one in force")
	}
	s.write("two", byKey(t, s.key))
	s.check("has no signature")
	changed := s.Changed()
	s.sign(s.key)
	s.check("") // the denial was not remembered
	if st := s.Status(); !st.InForce || st.Commit != "two" || st.Allowed != 1 || st.Denied[gate.Container] != 1 {
		t.Errorf("%+v", st)
	}
	s.write("three", byKey(t, cosigntest.NewKey(t)))
	s.check("not by any of the keys") // nor the permission
	select {
	case <-changed:
	default:
		t.Error("nobody was told of the denial")
	}
	s.write("four", nil)
	s.check("")
	if err := os.Remove(s.file); err != nil {
		t.Fatal(err)
	}
	s.check("nothing new may run")
}

// TestRemembers: an image that was allowed costs nothing more, whatever becomes
// of its signature, until the policy changes.
func TestRemembers(t *testing.T) {
	s := newSite(t)
	s.write("one", byKey(t, s.key))
	s.sign(s.key)
	s.check("")
	if err := os.RemoveAll(filepath.Join(filepath.Dir(s.file), "signatures")); err != nil {
		t.Fatal(err)
	}
	s.check("")
	s.write("two", byKey(t, s.key)) // the same policy
	s.check("")
	s.write("three", byKey(t, cosigntest.NewKey(t)))
	s.check("has no signature")
}

func TestAnyName(t *testing.T) {
	s := newSite(t)
	s.write("one", policy.Files{policy.File: []byte("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec:\n  images: [{glob: \"example.org/**\"}]\n  authorities: [{static: {action: pass}}]\n")})
	evil := verify.Image{Name: "evil.org/app:1", Digests: image.Digests}
	if err := s.CheckAny(gate.Container, []verify.Image{evil, image}); err != nil {
		t.Error(err)
	}
	var denied *verify.DeniedError
	if err := s.CheckAny(gate.Container, []verify.Image{evil}); !errors.As(err, &denied) {
		t.Error(err)
	}
	if err := s.CheckAny(gate.Container, nil); err == nil {
		t.Error("an image without a name may run")
	}
}

// TestLayoutThatIsBroken: a layout that cannot be read hides nothing else.
func TestLayoutThatIsBroken(t *testing.T) {
	s := newSite(t)
	s.write("one", byKey(t, s.key))
	dir := filepath.Join(filepath.Dir(s.file), "layout")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.check("is not an OCI index")
	s.sign(s.key)
	s.check("") // what another place has is enough
}

func BenchmarkCheck(b *testing.B) {
	s := newSite(b)
	s.write("one", byKey(b, s.key))
	s.sign(s.key)
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			if err := s.Check(gate.Container, image); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			cold := gate.New(gate.Config{File: s.file, Signatures: s.store, Log: slog.New(slog.DiscardHandler)})
			if err := cold.Check(gate.Container, image); err != nil {
				b.Fatal(err)
			}
		}
	})
}
