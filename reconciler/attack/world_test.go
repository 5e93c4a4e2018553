package attack_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/internal/signers/x509test"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

const patience = 30 * time.Second

// people are the keys of all rows: making them takes longer than a row.
type people struct {
	// alice and bob are trusted with everything, dev with apps/ where rules limit
	// her; gina signs with OpenPGP. mallory is nobody.
	alice, bob, dev, gina, mallory, malloryPGP *gittest.Key
	// repo is the repository that every world starts with a copy of.
	repo *gittest.Repo
	// corp is a company's certificate authority, fulcio a Sigstore one, with a
	// log and a time-stamp service; stranger is neither's.
	corp, fulcio, other *x509test.Authority
	witness, stranger   *x509test.Witness
}

func newPeople(t *testing.T) *people {
	t.Helper()
	p := &people{
		alice: gittest.SSHKey(t, "alice"), bob: gittest.SSHKey(t, "bob"), dev: gittest.SSHKey(t, "dev"),
		gina: gittest.PGPKey(t, "gina", "0"), mallory: gittest.SSHKey(t, "mallory"), malloryPGP: gittest.PGPKey(t, "mallory", "0"),
		corp: x509test.NewAuthority(t, "corp"), fulcio: x509test.NewAuthority(t, "fulcio"), other: x509test.NewAuthority(t, "other"),
		witness: x509test.NewWitness(t), stranger: x509test.NewWitness(t),
		repo: gittest.NewRepo(t),
	}
	p.repo.Write("trust/root.yaml", p.root(t, 1, limited, p.alice, p.bob, p.dev, p.gina))
	p.repo.Write("clusters/default/cluster.yaml", clusterYAML)
	p.repo.Write("clusters/default/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	p.repo.Write("apps/web/web.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n")
	p.repo.Commit(p.alice, "first")
	return p
}

// world is a repository and the machine that follows it.
type world struct {
	*gittest.Repo
	*people
	t    *testing.T
	cfg  reconciler.Config
	rec  *reconciler.Reconciler
	stop func()
	// base is the commit that the machine runs before the attack.
	base string
}

// certificates are signers of kind x509 that every trust root here lists, with
// the other keys.
func (p *people) certificates(t *testing.T) string {
	signer := func(s v1alpha1.Signer) string {
		var b strings.Builder
		fmt.Fprintf(&b, "- name: %s\n  kind: x509\n  subject: %q\n", s.Name, s.Subject)
		if s.Issuer != "" {
			fmt.Fprintf(&b, "  issuer: %s\n", s.Issuer)
		}
		for key, text := range map[string]string{"certificateAuthorities": s.CertificateAuthorities, "trustedRoot": s.TrustedRoot} {
			if text != "" {
				fmt.Fprintf(&b, "  %s: |\n    %s\n", key, strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    "))
			}
		}
		return b.String()
	}
	return signer(v1alpha1.Signer{Name: "cora", Subject: "cora@corp.example", CertificateAuthorities: p.corp.PEM()}) +
		signer(v1alpha1.Signer{Name: "sigrid", Subject: "sigrid@example.org", Issuer: google, TrustedRoot: p.fulcio.TrustedRoot(t, p.witness)})
}

const google = "https://accounts.google.com"

// root is a trust root with the x509 signers and the given keys.
func (p *people) root(t *testing.T, version int, rules string, keys ...*gittest.Key) string {
	text := gittest.RootYAML(version, "", keys...) + p.certificates(t)
	if rules != "" {
		text += "rules:\n" + rules
	}
	return text
}

func (w *world) root(version int, rules string, keys ...*gittest.Key) string {
	return w.people.root(w.t, version, rules, keys...)
}

// limited are rules that give dev the apps only, and ask for two signers for
// the settings of the machine.
const limited = `- signers: [alice, bob, gina, cora, sigrid]
  paths: ["trust/", "clusters/default/*.yaml", "README"]
- signers: [alice, bob]
  paths: ["clusters/default/machines/"]
  threshold: 2
- signers: [alice, dev]
  paths: ["apps/"]
`

// newWorld makes a repository with one commit, signed by alice, whose trust root
// the machine boots with.
func newWorld(t *testing.T, p *people) *world {
	t.Helper()
	w := &world{Repo: p.repo.Copy(t), people: p, t: t}
	w.base = w.Head()
	root, err := v1alpha1.DecodeTrustRoot("boot", []byte(w.root(1, limited, p.alice, p.bob, p.dev, p.gina)))
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = reconciler.Config{
		StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Kubeconfig: filepath.Join(t.TempDir(), "none"),
		Boot: &v1alpha1.BootConfig{
			Repository: v1alpha1.RepositorySpec{URL: "file://" + w.Dir, Branch: "main", Path: "clusters/default", Interval: v1alpha1.Duration{Duration: time.Hour}},
			Trust:      v1alpha1.BootTrust{Root: root},
		},
		Limits:   mirror.Limits{Object: 3 << 19, Fetch: 4 << 20, Objects: 8 << 20},
		Validate: validate,
	}
	t.Cleanup(w.kill)
	return w
}

// useRules begins the history anew with other rules, which the machine boots
// with.
func (w *world) useRules(rules string) {
	w.t.Helper()
	text := w.root(1, rules, w.alice, w.dev)
	w.Git("checkout", "-q", "--orphan", "begin")
	w.Write("trust/root.yaml", text)
	w.Commit(w.alice, "first")
	w.Git("branch", "-M", "main")
	root, err := v1alpha1.DecodeTrustRoot("boot", []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	w.cfg.Boot.Trust.Root = root
}

const clusterYAML = "apiVersion: bothy.dev/v1alpha1\nkind: Cluster\nmetadata:\n  name: x\n"

// validate decodes the machine half, as the agent does.
func validate(_ context.Context, s *reconciler.Snapshot) error {
	if s.Cluster != nil {
		if _, err := v1alpha1.DecodeCluster(s.Cluster.Path, s.Cluster.Data); err != nil {
			return err
		}
	}
	for _, m := range s.Machines {
		if _, err := v1alpha1.DecodeMachine(m.Path, m.Data); err != nil {
			return err
		}
	}
	return nil
}

// start runs the component that fetches and accepts.
func (w *world) start() {
	w.t.Helper()
	var err error
	if w.rec, err = reconciler.New(w.cfg); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range w.rec.Components() {
		if c.Name != reconciler.ComponentGit {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, func() {}) }()
		w.stop = func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("the component failed: %v", err)
			}
		}
	}
}

func (w *world) kill() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// until waits for a status.
func (w *world) until(what string, ok func(reconciler.Status) bool) reconciler.Status {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		changed := w.rec.Changed()
		s := w.rec.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			text, _ := json.MarshalIndent(s, "", "  ")
			w.t.Fatalf("waited %s for %s; the status is\n%s", patience, what, text)
		}
	}
}

func (w *world) runs(commit string) {
	w.t.Helper()
	w.until("commit "+commit+" to be accepted", func(s reconciler.Status) bool {
		if s.Rejected != nil && s.Rejected.Commit == commit {
			w.t.Fatalf("refused: %v", s.Rejected)
		}
		if s.Source.LastError != "" {
			w.t.Fatalf("not fetched: %s", s.Source.LastError)
		}
		return s.Accepted != nil && s.Accepted.Commit == commit
	})
}

// push makes a commit the branch's newest.
func (w *world) push(id string) { w.Git("update-ref", "refs/heads/main", id) }

// forge makes the staged commit with whatever signature, and pushes it.
func (w *world) forge(raw []byte) { w.push(w.Store("commit", raw)) }

// draft makes an unsigned commit of what is staged and returns its object.
func (w *world) draft(message string) string { return string(w.Raw(w.Commit(nil, message))) }

// withSignature puts an armored signature into a commit object.
func withSignature(raw, armor string) []byte {
	header := "gpgsig " + strings.ReplaceAll(strings.TrimSpace(armor), "\n", "\n ")
	return []byte(strings.Replace(raw, "\n\n", "\n"+header+"\n\n", 1))
}

// signatureOf takes the signature out of a commit object.
func signatureOf(t *testing.T, raw []byte) string {
	t.Helper()
	c, err := signers.ParseCommit(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Signature)
}

// cora is a certificate of the company for years.
func (p *people) cora(t *testing.T, change func(*x509test.Leaf)) *x509test.Identity {
	leaf := x509test.Leaf{Email: "cora@corp.example", NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}
	if change != nil {
		change(&leaf)
	}
	return p.corp.Issue(t, leaf)
}

// minted is when the certificates of sigrid were issued, for ten minutes.
func minted() time.Time { return time.Now().Add(-24 * time.Hour) }

func (p *people) sigrid(t *testing.T, change func(*x509test.Leaf)) *x509test.Identity {
	leaf := x509test.Leaf{
		Email: "sigrid@example.org", Issuer: google, Usage: x509.ExtKeyUsageCodeSigning,
		NotBefore: minted(), NotAfter: minted().Add(10 * time.Minute),
	}
	if change != nil {
		change(&leaf)
	}
	return p.fulcio.Issue(t, leaf)
}

// record is what decides after a restart which commit the machine runs, and
// whom it trusts.
func (w *world) record() string {
	w.t.Helper()
	var out []byte
	for _, name := range []string{"accepted.json", "root.yaml"} {
		data, err := os.ReadFile(filepath.Join(w.cfg.StateDir, "trust", name))
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, data...)
	}
	return string(out)
}
