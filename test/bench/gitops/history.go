package main

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // the names of Git's objects
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const objectsPerFile = 20

func scaleFile(i int) string { return fmt.Sprintf("clusters/default/objects/%03d.yaml", i) }

func scaleKustomization(objects int) string {
	var b strings.Builder
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for i := range (objects + objectsPerFile - 1) / objectsPerFile {
		fmt.Fprintf(&b, "- %s\n", strings.TrimPrefix(scaleFile(i), "clusters/default/"))
	}
	return b.String()
}

// scaleObjects is the content of a file; all its objects show the value.
func scaleObjects(file, objects, value int) string {
	var b strings.Builder
	for i := file * objectsPerFile; i < min(objects, (file+1)*objectsPerFile); i++ {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: object-%04d\n  namespace: default\ndata:\n  value: %q\n  text: something longer that does not change\n", i, fmt.Sprint(value))
	}
	return b.String()
}

// history adds commits to the bare repository, each a change of one file and
// signed with the repository's key, as if somebody had pushed them at once.
// Git makes the trees; running ssh-keygen for each signature would take minutes.
func (r *repository) history(ctx context.Context, parent string, objects, commits int) error {
	files := (objects + objectsPerFile - 1) / objectsPerFile
	var stream bytes.Buffer
	for i := 1; i <= commits; i++ {
		fmt.Fprintf(&stream, "commit refs/heads/trees\ncommitter bench <bench@example.org> %d +0000\ndata 0\n", i)
		if i == 1 {
			fmt.Fprintf(&stream, "from %s\n", parent)
		}
		content := scaleObjects(i%files, objects, i)
		fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", scaleFile(i%files), len(content), content)
	}
	if _, err := runGit(ctx, r.bare, stream.Bytes(), "fast-import", "--quiet"); err != nil {
		return err
	}
	trees, err := runGit(ctx, r.bare, nil, "log", "--reverse", "--format=%T", parent+"..refs/heads/trees")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(r.key)
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return fmt.Errorf("read the signing key: %w", err)
	}
	pack := newPack(commits)
	start := time.Now().Add(-time.Duration(commits) * time.Second)
	for i, tree := range strings.Fields(trees) {
		commit, err := signedCommit(signer, tree, parent, fmt.Sprintf("Change %d", i+1), start.Add(time.Duration(i)*time.Second))
		if err != nil {
			return err
		}
		parent = pack.add(commit)
	}
	if _, err := runGit(ctx, r.bare, pack.end(), "index-pack", "--stdin"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"update-ref", "refs/heads/main", parent},
		{"update-ref", "-d", "refs/heads/trees"},
		{"repack", "-a", "-d", "--quiet"},
	} {
		if _, err := runGit(ctx, r.bare, nil, args...); err != nil {
			return err
		}
	}
	progress("made %d signed commits", commits)
	return nil
}

func signedCommit(signer ssh.Signer, tree, parent, message string, at time.Time) ([]byte, error) {
	head := fmt.Sprintf("tree %s\nparent %s\nauthor bench <bench@example.org> %d +0000\ncommitter bench <bench@example.org> %d +0000\n", tree, parent, at.Unix(), at.Unix())
	body := "\n" + message + "\n"
	signature, err := sshsig.Sign(strings.NewReader(head+body), signer, sshsig.HashSHA512, "git")
	if err != nil {
		return nil, fmt.Errorf("sign a commit: %w", err)
	}
	armored := strings.TrimSpace(string(sshsig.Armor(signature)))
	return []byte(head + "gpgsig " + strings.ReplaceAll(armored, "\n", "\n ") + "\n" + body), nil
}

// pack is a Git pack of commits (gitformat-pack(5)).
type pack struct{ buffer bytes.Buffer }

func newPack(objects int) *pack {
	p := &pack{}
	p.buffer.WriteString("PACK")
	header := binary.BigEndian.AppendUint32(nil, 2)
	p.buffer.Write(binary.BigEndian.AppendUint32(header, uint32(objects)))
	return p
}

// add appends a commit and returns its name.
func (p *pack) add(commit []byte) string {
	const typeCommit = 1
	size := len(commit)
	b := byte(typeCommit<<4 | size&0x0f)
	for size >>= 4; size > 0; size >>= 7 {
		p.buffer.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	p.buffer.WriteByte(b)
	z := zlib.NewWriter(&p.buffer)
	_, _ = z.Write(commit) // to memory
	_ = z.Close()
	sum := sha1.Sum(append(fmt.Appendf(nil, "commit %d\x00", len(commit)), commit...)) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// end returns the pack with its checksum.
func (p *pack) end() []byte {
	sum := sha1.Sum(p.buffer.Bytes()) //nolint:gosec // as above
	return append(p.buffer.Bytes(), sum[:]...)
}
