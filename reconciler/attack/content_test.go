package attack_test

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

func pickKey(legit bool, w *world) *gittest.Key { return pick(legit, w.alice, nil) }

// writeRef sets a branch to what git itself would refuse.
func (w *world) writeRef(name, id string) {
	if err := os.WriteFile(filepath.Join(w.Dir, ".git", filepath.FromSlash(name)), []byte(id+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// tamper replaces the content of a loose object and keeps its id.
func (w *world) tamper(id, kind, content string) {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	fmt.Fprintf(z, "%s %d\x00%s", kind, len(content), content)
	z.Close()
	path := filepath.Join(w.Dir, ".git", "objects", id[:2], id[2:])
	os.Chmod(path, 0o644)
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// tree makes a commit by alice of a tree object that git would not write.
func (w *world) odd(tree []byte) {
	raw := w.draft("odd tree")
	old, _, _ := strings.Cut(strings.TrimPrefix(raw, "tree "), "\n")
	raw = strings.Replace(raw, old, w.Store("tree", tree), 1)
	w.forge(withSignature(raw, gittest.SSHSign(w.t, w.alice, "git", raw)))
}

func (w *world) blob(content string) []byte {
	id, err := hex.DecodeString(w.Store("blob", []byte(content)))
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// cluster pushes a cluster.yaml.
func (w *world) cluster(text string) {
	w.Write("clusters/default/cluster.yaml", text)
	w.Commit(w.alice, "settings")
}

var contents = []attack{
	{
		name: "file changed behind its object id",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "change")
			if !legit {
				id := strings.TrimSpace(w.Git("rev-parse", "HEAD:clusters/default/a.yaml"))
				w.tamper(id, "blob", strings.Replace(change, "changed", "evil...", 1))
			}
		},
		says: []string{"could not be read"},
	},
	{
		name: "directory changed behind its object id",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			w.Commit(w.alice, "change")
			if !legit {
				id := strings.TrimSpace(w.Git("rev-parse", "HEAD:clusters/default"))
				w.tamper(id, "tree", "100644 a.yaml\x00"+string(w.blob("evil")))
			}
		},
		says: []string{"could not be read"},
	},
	{
		name: "commit changed behind its object id",
		try: func(w *world, legit bool) {
			w.Write("clusters/default/a.yaml", change)
			id := w.Commit(w.alice, "change")
			if !legit {
				w.tamper(id, "commit", strings.Replace(string(w.Raw(id)), "\nchange", "\ncharge", 1))
			}
		},
		says: []string{"could not be read"},
	},
	{
		name: "oversized file",
		try: func(w *world, legit bool) {
			size := 2 << 20
			if legit {
				size = 1 << 19
			}
			w.Write("apps/big", strings.Repeat("x", size))
			w.Commit(w.alice, "big")
		},
		says: []string{"too large", "2097152 bytes"},
	},
	{
		name: "oversized repository",
		try: func(w *world, legit bool) {
			for i := range 12 {
				size := 900_000
				if legit {
					size = 9_000
				}
				w.Write(fmt.Sprintf("apps/big%d", i), strings.Repeat(fmt.Sprint(i%10), size))
			}
			w.Commit(w.alice, "many")
		},
		says: []string{"too large"},
	},
	{
		name: "symbolic link out of the site",
		try: func(w *world, legit bool) {
			at := "clusters/default/passwd.yaml"
			if legit {
				at = "apps/link" // nothing follows it there
			}
			w.Link(at, "/etc/passwd")
			w.Commit(w.alice, "link")
		},
		rule: acceptance.RuleTree, says: []string{"clusters/default/passwd.yaml", "symbolic link"},
	},
	{
		name: "directory entry that climbs out",
		try: func(w *world, legit bool) {
			if legit {
				w.Commit(w.alice, "plain")
				return
			}
			w.odd(append([]byte("100644 ..\x00"), w.blob("x")...))
		},
		rule: acceptance.RuleTree, says: []string{`named ".."`},
	},
	{
		name: "directory entry with a path",
		try: func(w *world, legit bool) {
			if legit {
				w.Commit(w.alice, "plain")
				return
			}
			w.odd(append([]byte("100644 ../../etc/passwd\x00"), w.blob("x")...))
		},
		rule: acceptance.RuleTree, says: []string{"../../etc/passwd"},
	},
	{
		name: "one name twice in a directory",
		try: func(w *world, legit bool) {
			if legit {
				w.Commit(w.alice, "plain")
				return
			}
			one, two := append([]byte("100644 a\x00"), w.blob("x")...), append([]byte("100644 a\x00"), w.blob("y")...)
			w.odd(append(one, two...))
		},
		rule: acceptance.RuleTree, says: []string{`"a" is out of order or there twice`},
	},
	{
		name: "submodule in the site",
		try: func(w *world, legit bool) {
			at := "clusters/default/sub.yaml"
			if legit {
				at = "apps/sub.yaml" // nothing of the site
			}
			w.Git("update-index", "--add", "--cacheinfo", "160000,"+w.base+","+at)
			w.Commit(w.alice, "submodule")
		},
		rule: acceptance.RuleTree, says: []string{"clusters/default/sub.yaml", "submodule"},
	},
	{
		name: "YAML bomb",
		try: func(w *world, legit bool) {
			text := clusterYAML
			if !legit {
				text += "spec:\n  controlPlane:\n    extraSANs: &a [x, x]\n  node:\n    labels: {b: *a}\n"
			}
			w.cluster(text + "# changed\n")
		},
		rule: acceptance.RuleCluster, says: []string{"clusters/default/cluster.yaml:", "anchors and aliases are not allowed"},
	},
	{
		name: "YAML bomb in the trust root",
		try: func(w *world, legit bool) {
			text := w.full(2)
			if !legit {
				text = strings.Replace(text, "rules:\n- signers: [", "rules:\n- signers: &a [", 1)
			}
			w.Write("trust/root.yaml", text)
			w.Commit(w.alice, "bomb")
		},
		rule: acceptance.RuleTrustRoot, says: []string{"anchors and aliases are not allowed"},
	},
	{
		name: "duplicate key",
		try: func(w *world, legit bool) {
			text := clusterYAML + "spec:\n  storage: {}\n"
			if !legit {
				text += "spec: {}\n"
			}
			w.cluster(text)
		},
		rule: acceptance.RuleCluster, says: []string{"cluster.yaml:7", "duplicate key"},
	},
	{
		name: "unknown field",
		try: func(w *world, legit bool) {
			field := "netwrk"
			if legit {
				field = "network"
			}
			w.cluster(clusterYAML + "spec:\n  " + field + ": {}\n")
		},
		rule: acceptance.RuleCluster, says: []string{"spec.netwrk: unknown field"},
	},
	{
		name: "second document",
		try: func(w *world, legit bool) {
			text := clusterYAML + "# end\n"
			if !legit {
				text += "---\n" + clusterYAML
			}
			w.cluster(text)
		},
		rule: acceptance.RuleCluster, says: []string{"second document"},
	},
	{
		name: "oversized document",
		try: func(w *world, legit bool) {
			size := 1<<20 + 1000
			if legit {
				size = 1 << 10
			}
			w.cluster(clusterYAML + "# " + strings.Repeat("x", size) + "\n")
		},
		rule: acceptance.RuleCluster, says: []string{"cluster.yaml: is 10", "bytes long, the limit is 1048576"},
	},
	{
		name: "site that is gone",
		try: func(w *world, legit bool) {
			w.Remove("clusters/default/a.yaml")
			if !legit {
				w.Remove("clusters/default/cluster.yaml")
			}
			w.Commit(w.alice, "empty")
		},
		rule: acceptance.RuleCluster, says: []string{"has no directory clusters/default"},
	},
}
