package attack_test

import "github.com/bothy-os/bothy/reconciler/acceptance"

const machineYAML = "apiVersion: bothy.dev/v1alpha1\nkind: Machine\nmetadata:\n  name: m\nspec:\n  role: control-plane\n"

// side commits on a branch "work" and returns to main.
func (w *world) side(commit func()) {
	w.Git("checkout", "-q", "-b", "work")
	commit()
	w.Git("checkout", "-q", "main")
}

var ruleRows = []attack{
	{
		name: "signer outside their paths",
		try: func(w *world, legit bool) {
			path := "clusters/default/a.yaml"
			if legit {
				path = "apps/web/web.yaml"
			}
			w.Write(path, change)
			w.Commit(w.dev, "change")
		},
		rule: acceptance.RulePaths, says: []string{`changes clusters/default/a.yaml, which "dev" may not change`},
	},
	{
		name: "directory with a similar name",
		try: func(w *world, legit bool) {
			path := "apps-evil/x.yaml"
			if legit {
				path = "apps/x.yaml"
			}
			w.Write(path, change)
			w.Commit(w.dev, "change")
		},
		rule: acceptance.RulePaths, says: []string{"changes apps-evil/x.yaml"},
	},
	{
		name: "deletion outside their paths",
		try: func(w *world, legit bool) {
			path := "clusters/default/a.yaml"
			if legit {
				path = "apps/web/web.yaml"
			}
			w.Remove(path)
			w.Commit(w.dev, "delete")
		},
		rule: acceptance.RulePaths, says: []string{"changes clusters/default/a.yaml"},
	},
	{
		name: "file mode outside their paths",
		try: func(w *world, legit bool) {
			path := "clusters/default/a.yaml"
			if legit {
				path = "apps/web/web.yaml"
			}
			w.Git("update-index", "--chmod=+x", path)
			w.Commit(w.dev, "executable")
		},
		rule: acceptance.RulePaths, says: []string{"changes clusters/default/a.yaml"},
	},
	{
		name: "file replaced by a directory of theirs",
		try: func(w *world, legit bool) {
			at := "README"
			if legit {
				at = "apps/README"
			}
			w.Write(at, "text\n")
			w.Commit(w.alice, "a file")
			w.Remove(at)
			w.Write(at+"/apps/x.yaml", change)
			w.Commit(w.dev, "a directory")
		},
		rule: acceptance.RulePaths, says: []string{"changes README"},
	},
	{
		name: "forbidden change smuggled in by a merge",
		try: func(w *world, legit bool) {
			path := "clusters/default/a.yaml"
			if legit {
				path = "apps/web/web.yaml"
			}
			w.side(func() {
				w.Write(path, change)
				w.Commit(w.dev, "outside")
			})
			w.Merge(w.dev, "work")
		},
		rule: acceptance.RulePaths, says: []string{"changes clusters/default/a.yaml"},
	},
	{
		name: "trusted signer changing the trust root",
		try: func(w *world, legit bool) {
			w.Write("trust/root.yaml", w.root(2, "- signers: [alice, dev]\n  paths: [\"**\"]\n", w.alice, w.dev))
			w.Commit(pick(legit, w.alice, w.dev), "more for dev")
		},
		rule: acceptance.RulePaths, says: []string{`changes trust/root.yaml, which "dev" may not change`},
	},
	{
		name: "one signer where two are needed",
		try: func(w *world, legit bool) {
			propose := func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(w.alice, "on my own")
			}
			if legit {
				w.side(propose)
				w.Merge(w.bob, "work")
				return
			}
			propose()
		},
		rule: acceptance.RuleThreshold, says: []string{"clusters/default/machines/m.yaml", "needs two signers", `only "alice"`},
	},
	{
		name: "merging one's own work",
		try: func(w *world, legit bool) {
			w.side(func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(w.alice, "proposal")
			})
			w.Merge(pick(legit, w.bob, w.alice), "work")
		},
		rule: acceptance.RuleThreshold, says: []string{"needs two signers"},
	},
	{
		name: "reviewed work changed in the merge",
		try: func(w *world, legit bool) {
			w.side(func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(w.alice, "proposal")
			})
			w.Git("merge", "-q", "--no-ff", "--no-commit", "work")
			if !legit {
				w.Write("clusters/default/machines/m.yaml", machineYAML+"  labels: {evil: \"1\"}\n")
			}
			w.Commit(w.bob, "merge, improved")
		},
		rule: acceptance.RuleThreshold, says: []string{"clusters/default/machines/m.yaml", `only "bob"`},
	},
	{
		name: "second signature on another file of the branch",
		try: func(w *world, legit bool) {
			w.side(func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(pick(legit, w.alice, w.bob), "mine")
				w.Write("clusters/default/b.yaml", change)
				w.Commit(w.alice, "unrelated")
			})
			w.Merge(w.bob, "work")
		},
		rule: acceptance.RuleThreshold, says: []string{`only "bob"`},
	},
	{
		// What somebody signed long ago, and others replaced since, is not their
		// consent to have it back.
		name: "old content brought back as somebody else's",
		prepare: func(w *world) {
			w.side(func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(w.alice, "with a hole")
			})
			w.Merge(w.bob, "work")
			w.Git("branch", "-M", "work", "old")
			w.side(func() {
				w.Write("clusters/default/machines/m.yaml", machineYAML+"  labels: {hole: fixed}\n")
				w.Commit(w.alice, "fix")
			})
			w.Merge(w.bob, "work")
			w.Git("branch", "-D", "work")
		},
		try: func(w *world, legit bool) {
			w.Git("checkout", "-q", "-b", "work", "old")
			if legit {
				w.Git("merge", "-q", "main", "--no-edit", "-m", "catch up", "--no-ff", "--no-commit")
				w.Git("commit", "-q", "--no-gpg-sign", "-m", "catch up")
				w.Write("clusters/default/machines/m.yaml", machineYAML)
				w.Commit(w.alice, "I do want it back")
			} else {
				w.Write("clusters/default/b.yaml", change)
				w.Commit(w.bob, "harmless")
			}
			w.Git("checkout", "-q", "main")
			w.Git("merge", "-q", "--no-ff", "--no-commit", "-s", "ours", "work")
			w.Git("checkout", "work", "--", "clusters")
			w.Commit(w.bob, "merge")
		},
		rule: acceptance.RuleThreshold, says: []string{"clusters/default/machines/m.yaml", `only "bob"`},
	},
}
