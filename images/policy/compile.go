package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/internal/strictyaml"
)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Compile makes a policy of the files. All problems are returned together, each
// with file, line and field.
func Compile(files Files) (*Policy, error) {
	c := &compiler{files: files, out: &Policy{Hash: files.Hash(), Denied: map[string]string{}, NoMatch: Deny}, seen: map[string]bool{}}
	documents := split(files[File])
	for _, d := range documents {
		c.document(d)
	}
	if len(documents) == 0 {
		c.errs = append(c.errs, fmt.Errorf("%s: is empty; write a policy, or delete the file to run any image", File))
	}
	if c.failed() {
		return nil, errors.Join(c.errs...)
	}
	return c.out, nil
}

// compiler gathers rules and problems.
type compiler struct {
	files Files
	out   *Policy
	doc   *strictyaml.Document
	seen  map[string]bool
	errs  []error
}

func (c *compiler) failed() bool { return len(c.errs) > 0 }

func (c *compiler) fail(field, remedy, format string, args ...any) {
	c.errs = append(c.errs, c.doc.Errorf(field, remedy, format, args...))
}

// refuse reports a field that is known and not supported.
func (c *compiler) refuse(field string, value any, remedy string) {
	if value != nil {
		c.fail(field, remedy, "is not supported")
	}
}

// split cuts a file into its documents. Each keeps its lines: what stands before
// it is left as empty lines.
func split(text []byte) [][]byte {
	var out [][]byte
	var current bytes.Buffer
	filled, line := false, 0
	flush := func() {
		if filled {
			out = append(out, slices.Clone(current.Bytes()))
		}
		current.Reset()
		current.WriteString(strings.Repeat("\n", line))
		filled = false
	}
	for l := range bytes.Lines(text) {
		line++
		if trimmed := bytes.TrimRight(l, " \t\r\n"); bytes.Equal(trimmed, []byte("---")) || bytes.HasPrefix(l, []byte("--- ")) {
			flush()
			continue
		}
		current.Write(l)
		if t := bytes.TrimSpace(l); len(t) > 0 && t[0] != '#' {
			filled = true
		}
	}
	flush()
	return out
}

func (c *compiler) document(text []byte) {
	var kind anyKind
	doc, err := strictyaml.Decode(File, text, &kind)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.doc = doc
	switch {
	case kind.Kind == sigstoreKind && kind.APIVersion == sigstoreVersion:
		c.clusterImagePolicy(text)
	case kind.Kind == ownKind && kind.APIVersion == ownVersion:
		c.imageTrust(text)
	default:
		c.fail("kind", fmt.Sprintf("write %s %s, or %s %s", sigstoreVersion, sigstoreKind, ownVersion, ownKind), "%s %s is not known here", kind.APIVersion, kind.Kind)
	}
}

func (c *compiler) imageTrust(text []byte) {
	var trust imageTrust
	doc, err := strictyaml.Decode(File, text, &trust)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.doc = doc
	c.once(ownKind, "kind", "keep one")
	switch trust.Spec.NoMatch {
	case "":
	case Deny, Warn, Allow:
		c.out.NoMatch = trust.Spec.NoMatch
	default:
		c.fail("spec.noMatch", "write deny, warn or allow", "%q is not an action", trust.Spec.NoMatch)
	}
	for i, d := range trust.Spec.Deny {
		if !digestForm.MatchString(d.Digest) {
			c.fail(fmt.Sprintf("spec.deny[%d].digest", i), "write sha256:<64 hexadecimal digits>", "%q is not a digest", d.Digest)
		}
		c.out.Denied[d.Digest] = d.Reason
	}
}

// once refuses a second document of the same name.
func (c *compiler) once(name, field, remedy string) {
	if c.seen[name] {
		c.fail(field, remedy, "there are two of %s", name)
	}
	c.seen[name] = true
}

func (c *compiler) clusterImagePolicy(text []byte) {
	var p clusterImagePolicy
	doc, err := strictyaml.Decode(File, text, &p)
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.doc = doc
	if p.Metadata.Name == "" {
		c.fail("metadata.name", "give the policy a name", "is empty")
	}
	c.once(sigstoreKind+" "+p.Metadata.Name, "metadata.name", "rename one")
	c.refuse("spec.policy", p.Spec.Policy, "put conditions into the policy of an attestation")
	c.refuse("spec.match", p.Spec.Match, "remove it: the node enforces the policy on every container, whatever object it belongs to")
	c.refuse("status", p.Status, "remove it")
	rule := Rule{Name: p.Metadata.Name}
	switch p.Spec.Mode {
	case "", "enforce":
	case "warn":
		rule.WarnOnly = true
	default:
		c.fail("spec.mode", "write enforce or warn", "%q is not a mode", p.Spec.Mode)
	}
	if len(p.Spec.Images) == 0 {
		c.fail("spec.images", `name the images, such as - glob: "example.org/**"`, "is empty")
	}
	for i, image := range p.Spec.Images {
		g, err := compileGlob(image.Glob)
		if err != nil {
			c.fail(fmt.Sprintf("spec.images[%d].glob", i), "use letters, digits, / : . _ - @ and *", "%v", err)
			continue
		}
		rule.globs = append(rule.globs, g)
	}
	if len(p.Spec.Authorities) == 0 {
		c.fail("spec.authorities", "name a key, an identity, or a static decision", "is empty")
	}
	for i := range p.Spec.Authorities {
		rule.Authorities = append(rule.Authorities, c.compileAuthority(fmt.Sprintf("spec.authorities[%d]", i), i, &p.Spec.Authorities[i]))
	}
	c.out.Rules = append(c.out.Rules, rule)
}
