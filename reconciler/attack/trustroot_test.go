package attack_test

import (
	"strings"

	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

// full lists everybody but mallory.
func (w *world) full(version int) string {
	return w.root(version, limited, w.alice, w.bob, w.dev, w.gina)
}

var trustRoots = []attack{
	{
		name: "change signed only by the new trust root",
		try: func(w *world, legit bool) {
			w.Write("trust/root.yaml", w.root(2, strings.ReplaceAll(limited, "dev]", "dev, mallory]"), w.alice, w.bob, w.dev, w.gina, w.mallory))
			w.Commit(pick(legit, w.alice, w.mallory), "let me in")
		},
		rule: acceptance.RuleSignature, class: signers.UnknownKey, says: []string{`"let me in"`, "does not list"},
	},
	{
		name: "version decrease",
		prepare: func(w *world) {
			w.Write("trust/root.yaml", w.full(7))
			w.Commit(w.alice, "seven")
		},
		try: func(w *world, legit bool) {
			version := 6
			if legit {
				version = 8
			}
			w.Write("trust/root.yaml", w.root(version, "- signers: [alice, bob]\n  paths: [\"**\"]\n", w.alice, w.bob))
			w.Commit(w.alice, "back")
		},
		rule: acceptance.RuleRootVersion, says: []string{`"back"`, "from 7 to 6"},
	},
	{
		name: "deleted",
		try: func(w *world, legit bool) {
			w.Remove("trust/root.yaml")
			if legit {
				w.Write("trust/root.yaml", w.full(2))
			}
			w.Commit(w.alice, "who needs it")
		},
		rule: acceptance.RuleTrustRoot, says: []string{"has no trust/root.yaml"},
	},
	{
		name: "turned into a symbolic link",
		try: func(w *world, legit bool) {
			w.Remove("trust/root.yaml")
			if legit {
				w.Write("trust/root.yaml", w.full(2))
			} else {
				w.Link("trust/root.yaml", "../clusters/default/a.yaml")
			}
			w.Commit(w.alice, "link")
		},
		rule: acceptance.RuleTrustRoot, says: []string{"trust/root.yaml that is not a regular file"},
	},
	{
		name: "unknown field",
		try: func(w *world, legit bool) {
			text := w.full(2)
			if !legit {
				text += "treshold: 2\n"
			}
			w.Write("trust/root.yaml", text)
			w.Commit(w.alice, "typo")
		},
		rule: acceptance.RuleTrustRoot, says: []string{"treshold: unknown field"},
	},
	{
		name: "signers given twice",
		try: func(w *world, legit bool) {
			text := w.full(2)
			if !legit {
				text += "signers: []\n"
			}
			w.Write("trust/root.yaml", text)
			w.Commit(w.alice, "two lists")
		},
		rule: acceptance.RuleTrustRoot, says: []string{"duplicate key"},
	},
	{
		name: "one key under two names, to be two signers",
		try: func(w *world, legit bool) {
			twin := *w.bob
			twin.Name = "bobby"
			if legit {
				twin = *w.mallory
			}
			w.Write("trust/root.yaml", w.root(2, limited, w.alice, w.bob, w.dev, w.gina, &twin))
			w.Commit(w.alice, "bobby joins")
		},
		rule: acceptance.RuleTrustRoot, says: []string{`"bob" and "bobby" have the same key`},
	},
	{
		name: "key that cannot be read",
		try: func(w *world, legit bool) {
			carol := &gittest.Key{Name: "carol", Kind: "ssh", Public: "ssh-ed25519 nonsense"}
			if legit {
				carol.Public = w.mallory.Public
			}
			w.Write("trust/root.yaml", w.root(2, limited, w.alice, w.bob, w.dev, w.gina, carol))
			w.Commit(w.alice, "carol joins")
		},
		rule: acceptance.RuleTrustRoot, says: []string{`signer "carol"`},
	},
}
