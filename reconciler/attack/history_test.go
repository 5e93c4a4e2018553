package attack_test

import (
	"strings"

	"github.com/bothy-os/bothy/reconciler/acceptance"
)

var histories = []attack{
	{
		name: "old signed commit pushed again",
		prepare: func(w *world) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "fix a hole")
		},
		try: func(w *world, legit bool) {
			if legit {
				w.Git(append(w.alice.SignArgs(), "revert", "--no-edit", "HEAD")...)
				return
			}
			w.Git("reset", "-q", "--hard", "HEAD~1")
		},
		rule: acceptance.RuleDescent, says: []string{`"first"`, "is older than the accepted", `"fix a hole"`},
	},
	{
		name: "force-push to a sibling history",
		prepare: func(w *world) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "ours")
		},
		try: func(w *world, legit bool) {
			if !legit {
				w.Git("reset", "-q", "--hard", "HEAD~1")
			}
			w.Write("clusters/default/b.yaml", change)
			w.Commit(w.bob, "theirs")
		},
		rule: acceptance.RuleDescent, says: []string{`"theirs"`, "does not descend from the accepted", `"ours"`},
	},
	{
		name: "branch swapped to another signed repository",
		try: func(w *world, legit bool) {
			if !legit {
				w.Git("checkout", "-q", "--orphan", "other")
			}
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "elsewhere")
			if !legit {
				w.Git("branch", "-M", "main")
			}
		},
		rule: acceptance.RuleDescent, says: []string{`"elsewhere"`, "does not descend from the accepted"},
	},
	{
		name: "accepted commit only as a second parent",
		prepare: func(w *world) {
			w.Git("branch", "work")
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "on main")
		},
		try: func(w *world, legit bool) {
			w.Git("checkout", "-q", "work")
			w.Write("clusters/default/b.yaml", change)
			w.Commit(w.alice, "work")
			if legit {
				w.Git("checkout", "-q", "main")
				w.Merge(w.alice, "work")
				return
			}
			w.Merge(w.alice, "main")
			w.push(w.Head())
		},
		rule: acceptance.RuleDescent, says: []string{"only through a merge"},
	},
	{
		name: "graft that hides an unsigned commit",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			hidden := w.Commit(pickKey(legit, w), "hidden")
			w.Commit(w.alice, "innocent")
			// To everybody who asks git here, the hidden commit is the first one.
			w.Git("replace", hidden, w.base)
		},
		rule: acceptance.RuleSignature, says: []string{`"hidden"`, "is not signed"},
	},
	{
		name: "branch that is not a commit",
		try: func(w *world, legit bool) {
			if legit {
				w.Commit(w.alice, "a commit")
				return
			}
			tree := strings.TrimSpace(w.Git("rev-parse", "HEAD^{tree}"))
			w.writeRef("refs/heads/main", tree)
		},
		says: []string{"could not be read"},
	},
}
