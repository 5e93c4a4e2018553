package attack_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

// pick is who signs: the legitimate one or the attacker.
func pick(legit bool, good, bad *gittest.Key) *gittest.Key {
	if legit {
		return good
	}
	return bad
}

const change = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: changed}\n"

var signatures = []attack{
	{
		name: "unsigned",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.alice, nil), "change")
		},
		rule: acceptance.RuleSignature, class: signers.Unsigned, says: []string{"is not signed", `"change"`},
	},
	{
		name: "unsigned below a signed one",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.bob, nil), "hidden")
			w.Commit(w.alice, "innocent")
		},
		rule: acceptance.RuleSignature, class: signers.Unsigned, says: []string{`"hidden"`, "is not signed"},
	},
	{
		name: "SSH key that nobody knows",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.alice, w.mallory), "change")
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{"the key SHA256:", "does not list"},
	},
	{
		name: "OpenPGP key that nobody knows",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.gina, w.malloryPGP), "change")
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{"does not list"},
	},
	{
		name: "key that was removed",
		prepare: func(w *world) {
			// The x509 signers stay listed, but no rule names them.
			w.Write("trust/root.yaml", w.root(2, "- signers: [alice]\n  paths: [\"**\"]\n", w.alice))
			w.Commit(w.bob, "only alice stays")
		},
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.alice, w.bob), "change")
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{"does not list"},
	},
	{
		name: "SSH key that has expired",
		try: func(w *world, legit bool) {
			end := time.Now().Add(-time.Hour)
			if legit {
				end = time.Now().Add(time.Hour)
			}
			text := w.root(2, limited, w.alice, w.bob, w.dev, w.gina)
			w.Write("trust/root.yaml", strings.Replace(text, "- name: dev\n", fmt.Sprintf("- name: dev\n  notAfter: %s\n", end.UTC().Format(time.RFC3339)), 1))
			w.Commit(w.alice, "dev's key ends")
			w.Write("apps/web/web.yaml", change)
			w.Commit(w.dev, "change")
		},
		rule: acceptance.RuleSignature, class: signers.Expired, says: []string{`signed by "dev"`, "no longer valid now"},
	},
	{
		name: "SSH key that has expired, on a commit dated back",
		try: func(w *world, legit bool) {
			end := time.Now().Add(-time.Hour)
			if legit {
				end = time.Now().Add(time.Hour)
			}
			text := w.root(2, limited, w.alice, w.bob, w.dev, w.gina)
			w.Write("trust/root.yaml", strings.Replace(text, "- name: dev\n", fmt.Sprintf("- name: dev\n  notAfter: %s\n", end.UTC().Format(time.RFC3339)), 1))
			w.Commit(w.alice, "dev's key ends")
			w.Write("apps/web/web.yaml", change)
			w.Env("GIT_COMMITTER_DATE=" + time.Now().Add(-2*time.Hour).Format(time.RFC3339))
			w.Commit(w.dev, "change")
		},
		rule: acceptance.RuleSignature, class: signers.Expired, says: []string{`signed by "dev"`, "no longer valid now"},
	},
	{
		name: "OpenPGP key that has expired",
		try: func(w *world, legit bool) {
			expire := "1d"
			if legit {
				expire = "0"
			}
			// Made and used when it was valid.
			old := gittest.OldPGPKey(w.t, "olga", expire, "20240101T000000")
			w.Write("trust/root.yaml", w.root(2, "- signers: [alice, olga]\n  paths: [\"**\"]\n", w.alice, old))
			w.Commit(w.alice, "olga joins")
			w.Write("clusters/default/a.yaml", change)
			w.Commit(old, "change")
		},
		rule: acceptance.RuleSignature, class: signers.Expired, says: []string{`signed by "olga"`, "has expired"},
	},
	{
		name: "signature copied from another commit",
		try: func(w *world, legit bool) {
			copied := signatureOf(w.t, w.Raw(w.Commit(w.alice, "signed")))
			w.Git("reset", "-q", "--hard", w.base)
			w.Write("clusters/default/a.yaml", change)
			raw := w.draft("forged")
			if legit {
				copied = gittest.SSHSign(w.t, w.alice, "git", raw)
			}
			w.forge(withSignature(raw, copied))
		},
		rule: acceptance.RuleSignature, class: signers.Mismatch, says: []string{`signature of "alice"`, "not made for this commit"},
	},
	{
		name: "OpenPGP signature copied from another commit",
		try: func(w *world, legit bool) {
			signed := w.Raw(w.Commit(w.gina, "signed"))
			if legit {
				return
			}
			w.Git("reset", "-q", "--hard", w.base)
			w.Write("clusters/default/a.yaml", change)
			w.forge(withSignature(w.draft("forged"), signatureOf(w.t, signed)))
		},
		rule: acceptance.RuleSignature, class: signers.Mismatch, says: []string{`signature of "gina"`, "not made for this commit"},
	},
	{
		name: "SSH signature for another namespace",
		try: func(w *world, legit bool) {
			namespace := "file"
			if legit {
				namespace = "git"
			}
			w.Write("clusters/default/a.yaml", change)
			raw := w.draft("change")
			w.forge(withSignature(raw, gittest.SSHSign(w.t, w.alice, namespace, raw)))
		},
		rule: acceptance.RuleSignature, class: signers.WrongNamespace, says: []string{`made for "file"`},
	},
	{
		name: "second signature beside a good one",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			raw := w.draft("change")
			good := withSignature(raw, gittest.SSHSign(w.t, w.alice, "git", raw))
			if !legit {
				good = withSignature(string(good), gittest.SSHSign(w.t, w.mallory, "git", raw))
			}
			w.forge(good)
		},
		rule: acceptance.RuleSignature, class: signers.Malformed, says: []string{"two signatures"},
	},
	{
		name: "committer changed after signing",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			raw := string(w.Raw(w.Commit(w.alice, "change")))
			if !legit {
				raw = strings.Replace(raw, "committer Test", "committer Tess", 1)
			}
			w.forge([]byte(raw))
		},
		rule: acceptance.RuleSignature, class: signers.Mismatch, says: []string{"not made for this commit"},
	},
	{
		name: "signature in the header of another object format",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			raw := string(w.Raw(w.Commit(w.alice, "change")))
			if !legit {
				raw = strings.Replace(raw, "\ngpgsig ", "\ngpgsig-sha256 ", 1)
			}
			w.forge([]byte(raw))
		},
		rule: acceptance.RuleSignature, class: signers.Unsupported, says: []string{"another object format"},
	},
}
