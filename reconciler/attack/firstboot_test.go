package attack_test

import (
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/acceptance"
)

var firstBoots = []attack{
	{
		name: "repository with a trust root of its own",
		try: func(w *world, legit bool) {
			w.Git("checkout", "-q", "--orphan", "other")
			w.Write("trust/root.yaml", w.full(1))
			if !legit {
				w.Write("trust/root.yaml", w.root(1, "- signers: [mallory]\n  paths: [\"**\"]\n", w.mallory))
			}
			w.Commit(pick(legit, w.alice, w.mallory), "start")
			w.Git("branch", "-M", "main")
		},
		firstBoot: true,
		rule:      acceptance.RuleAnchor, says: []string{"does not chain to the boot configuration"},
	},
	{
		name: "copy of the trust root in somebody else's repository",
		try: func(w *world, legit bool) {
			w.Git("checkout", "-q", "--orphan", "other")
			w.Commit(pick(legit, w.alice, w.mallory), "all of it")
			w.Git("branch", "-M", "main")
		},
		firstBoot: true,
		rule:      acceptance.RuleSignature, class: signers.UnknownKey, says: []string{`"all of it"`, "does not list"},
	},
	{
		name: "limited signer vouching for a whole repository",
		prepare: func(w *world) {
			w.useRules("- signers: [alice]\n  paths: [\"**\"]\n- signers: [dev]\n  paths: [\"apps/\"]\n")
		},
		try: func(w *world, legit bool) {
			w.Git("checkout", "-q", "--orphan", "other")
			w.Write("clusters/default/a.yaml", change)
			w.Commit(pick(legit, w.alice, w.dev), "a whole new world")
			w.Git("branch", "-M", "main")
		},
		firstBoot: true,
		rule:      acceptance.RuleAnchor, says: []string{`signed by "dev"`, "cannot vouch for a repository"},
	},
	{
		name: "trust root handed over by nobody",
		prepare: func(w *world) {
			w.useRules("- signers: [alice]\n  paths: [\"**\"]\n")
		},
		try: func(w *world, legit bool) {
			w.Write("trust/root.yaml", w.root(2, "- signers: [mallory]\n  paths: [\"**\"]\n", w.mallory))
			w.Commit(pick(legit, w.alice, w.mallory), "hand over")
			w.Commit(w.mallory, "go on")
		},
		firstBoot: true,
		rule:      acceptance.RuleSignature, class: signers.UnknownKey, says: []string{`"hand over"`, "does not list"},
	},
}
