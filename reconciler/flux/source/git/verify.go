package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/signers"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// verify checks the signatures that the object asks for and says in words what
// was verified; nothing if the object asks for none.
func (a *attempt) verify(ctx context.Context, f mirror.Fetched) (string, error) {
	v := a.obj.Spec.Verification
	if v == nil {
		return "", nil
	}
	data, err := a.secret(ctx, v.SecretRef.Name)
	if err != nil {
		return "", err
	}
	ring, err := keyring(data)
	if err != nil {
		return "", fmt.Errorf("public keys in Secret '%s/%s': %w", a.obj.Namespace, v.SecretRef.Name, err)
	}
	var said []string
	if v.VerifyTag() {
		line, err := a.verifyTag(ring, f)
		if err != nil {
			return "", err
		}
		said = append(said, line)
	}
	if v.VerifyHEAD() {
		line, err := a.verifyCommit(ring, f.Commit)
		if err != nil {
			return "", err
		}
		said = append(said, line)
	}
	return "verified signature of\n\t- " + strings.Join(said, "\n\t- "), nil
}

func (a *attempt) verifyCommit(ring *signers.Keyring, id string) (string, error) {
	raw, err := a.job.mirror.Object(mirror.CommitObject, id)
	if err != nil {
		return "", err
	}
	commit, err := signers.ParseCommit(raw)
	if err != nil {
		return "", fmt.Errorf("signature verification of commit '%s' failed: %w", id, err)
	}
	who, err := ring.Verify(commit, a.now())
	if err != nil {
		return "", fmt.Errorf("signature verification of commit '%s' failed: %w", id, err)
	}
	return fmt.Sprintf("commit '%s' with key '%s'", id, who.Fingerprint), nil
}

// verifyTag checks the signature of the tag object, and that it is about this
// tag and this commit: a signed tag must not stand under another name.
func (a *attempt) verifyTag(ring *signers.Keyring, f mirror.Fetched) (string, error) {
	name, isTag := strings.CutPrefix(f.Ref, "refs/tags/")
	if !isTag || f.Tag == "" {
		return "", fmt.Errorf("spec.verify.mode is %s, but spec.ref does not point to an annotated tag; tag the commit with git tag -s, or use the mode HEAD", a.obj.Spec.Verification.Mode)
	}
	raw, err := a.job.mirror.Object(mirror.TagObject, f.Tag)
	if err != nil {
		return "", err
	}
	tag, err := parseTag(raw)
	switch {
	case err != nil:
		return "", fmt.Errorf("signature verification of tag '%s' failed: %w", name, err)
	case tag.name != name:
		return "", fmt.Errorf("signature verification of tag '%s' failed: the signed object is about the tag '%s'", name, tag.name)
	case tag.object != f.Commit:
		return "", fmt.Errorf("signature verification of tag '%s' failed: the signed object is about %s", name, tag.object)
	}
	who, err := ring.Verify(&signers.Commit{Payload: tag.payload, Signature: tag.signature, CommitTime: a.now()}, a.now())
	if err != nil {
		return "", fmt.Errorf("signature verification of tag '%s' failed: the tag %w", name, err)
	}
	return fmt.Sprintf("tag '%s' with key '%s'", name, who.Fingerprint), nil
}

// tag is what is needed of an annotated tag object.
type tag struct {
	object, name       string
	payload, signature []byte
}

// parseTag takes a raw tag object apart. The signature is the end of the
// message.
func parseTag(raw []byte) (*tag, error) {
	t := &tag{payload: raw}
	for _, begin := range []string{"-----BEGIN PGP SIGNATURE-----", "-----BEGIN SSH SIGNATURE-----", "-----BEGIN SIGNED MESSAGE-----"} {
		if i := bytes.LastIndex(raw, []byte("\n"+begin)); i >= 0 {
			t.payload, t.signature = raw[:i+1], raw[i+1:]
			break
		}
	}
	head, _, ok := strings.Cut(string(t.payload), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 4 {
		return nil, errors.New("the tag object is malformed")
	}
	var kind string
	for i, field := range []struct {
		name string
		to   *string
	}{{"object", &t.object}, {"type", &kind}, {"tag", &t.name}} {
		value, ok := strings.CutPrefix(lines[i], field.name+" ")
		if !ok {
			return nil, errors.New("the tag object is malformed")
		}
		*field.to = value
	}
	if kind != "commit" {
		return nil, fmt.Errorf("the tag is of a %s, not of a commit", kind)
	}
	return t, nil
}

// keyring reads the keys of a Secret: OpenPGP keys under *.asc, lines as in
// authorized_keys under *.sshpub.
func keyring(data map[string][]byte) (*signers.Keyring, error) {
	var all []v1alpha1.Signer
	seen := map[string]bool{}
	add := func(name, kind string, keys []string) {
		for i, key := range keys {
			if seen[key] {
				continue
			}
			seen[key] = true
			s := v1alpha1.Signer{Name: name, Kind: kind, PublicKey: key}
			if i > 0 {
				s.Name = fmt.Sprintf("%s (%d)", name, i+1)
			}
			all = append(all, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		switch {
		case strings.HasSuffix(name, ".asc"):
			keys, err := openPGPKeys(data[name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			add(name, signers.KindOpenPGP, keys)
		case strings.HasSuffix(name, ".sshpub"):
			add(name, signers.KindSSH, sshKeys(data[name]))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is none; OpenPGP keys are found under names that end in .asc, SSH keys under names that end in .sshpub")
	}
	return signers.NewKeyring(all)
}

// openPGPKeys writes each key of an armored key ring on its own.
func openPGPKeys(data []byte) ([]string, error) {
	entities, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read OpenPGP keys: %w", err)
	}
	var out []string
	for _, e := range entities {
		var b strings.Builder
		w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
		if err != nil {
			return nil, err
		}
		if err := e.Serialize(w); err != nil {
			return nil, fmt.Errorf("read OpenPGP keys: %w", err)
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		out = append(out, b.String())
	}
	return out, nil
}

func sshKeys(data []byte) []string {
	var out []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// showVerified puts what was verified into the status.
func (a *attempt) showVerified(verified string) {
	if verified == "" {
		conditions.Delete(a.obj, sourcev1.SourceVerifiedCondition)
		a.obj.Status.SourceVerificationMode = nil
		return
	}
	mode := a.obj.Spec.Verification.GetMode()
	a.obj.Status.SourceVerificationMode = &mode
	conditions.MarkTrue(a.obj, sourcev1.SourceVerifiedCondition, meta.SucceededReason, "%s", verified)
}
