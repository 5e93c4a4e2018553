package gittest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/memory"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Signer is an SSH key in memory, for more signatures than ssh-keygen makes in
// a reasonable time.
type Signer struct {
	Key    Key
	signer ssh.Signer
}

// NewSigner makes an ed25519 key.
func NewSigner(t testing.TB, name string) *Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
	return &Signer{Key: Key{Name: name, Kind: "ssh", Public: line + " " + name}, signer: s}
}

// Sign puts a signature into a commit object.
func (s *Signer) Sign(t testing.TB, raw string) string {
	t.Helper()
	signature, err := sshsig.Sign(strings.NewReader(raw), s.signer, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	armor := strings.TrimSpace(string(sshsig.Armor(signature)))
	return strings.Replace(raw, "\n\n", "\ngpgsig "+strings.ReplaceAll(armor, "\n", "\n ")+"\n\n", 1)
}

// History makes a repository with a trust root, dirs*files files, and then
// commits signed commits of one changed file each, in one pack.
func History(t testing.TB, signer *Signer, dirs, files, commits int) *Repo {
	t.Helper()
	h := &historian{t: t, signer: signer, objects: memory.NewStorage(), at: time.Now().Add(-time.Duration(commits) * time.Minute)}
	h.trust = h.add(plumbing.TreeObject, entry("100644", "root.yaml", h.add(plumbing.BlobObject, []byte(RootYAML(1, "", &signer.Key)))))
	for d := range dirs {
		h.blobs = append(h.blobs, make([]plumbing.Hash, files))
		for f := range files {
			h.blobs[d][f] = h.file(d, f, 0)
		}
		h.trees = append(h.trees, h.directory(d))
	}
	h.commit("first")
	for i := range commits {
		d, f := i%dirs, i/dirs%files
		h.blobs[d][f] = h.file(d, f, i+1)
		h.trees[d] = h.directory(d)
		h.commit(fmt.Sprintf("change %d", i+1))
	}
	r := NewRepo(t)
	h.write(r)
	r.Git("update-ref", "refs/heads/main", h.tip.String())
	return r
}

type historian struct {
	t       testing.TB
	signer  *Signer
	objects *memory.Storage
	ids     []plumbing.Hash
	at      time.Time
	trust   plumbing.Hash
	blobs   [][]plumbing.Hash
	trees   []plumbing.Hash
	tip     plumbing.Hash
}

func (h *historian) add(kind plumbing.ObjectType, data []byte) plumbing.Hash {
	o := h.objects.NewEncodedObject()
	o.SetType(kind)
	o.SetSize(int64(len(data)))
	w, err := o.Writer()
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	id := o.Hash()
	if _, err := h.objects.EncodedObject(plumbing.AnyObject, id); err == nil {
		return id
	}
	if _, err := h.objects.SetEncodedObject(o); err != nil {
		h.t.Fatal(err)
	}
	h.ids = append(h.ids, id)
	return id
}

func entry(mode, name string, id plumbing.Hash) []byte {
	return append([]byte(mode+" "+name+"\x00"), id[:]...)
}

func (h *historian) file(d, f, version int) plumbing.Hash {
	return h.add(plumbing.BlobObject, fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c-%d-%d\n  namespace: default\ndata:\n  version: \"%d\"\n", d, f, version))
}

func (h *historian) directory(d int) plumbing.Hash {
	var b bytes.Buffer
	for f, id := range h.blobs[d] {
		b.Write(entry("100644", fmt.Sprintf("f%06d.yaml", f), id))
	}
	return h.add(plumbing.TreeObject, b.Bytes())
}

func (h *historian) commit(message string) {
	var root bytes.Buffer
	for d, id := range h.trees {
		root.Write(entry("40000", fmt.Sprintf("d%04d", d), id))
	}
	root.Write(entry("40000", "trust", h.trust))
	h.at = h.at.Add(time.Minute)
	who := fmt.Sprintf("%s <%s@example.com> %d +0000", h.signer.Key.Name, h.signer.Key.Name, h.at.Unix())
	raw := "tree " + h.add(plumbing.TreeObject, root.Bytes()).String() + "\n"
	if !h.tip.IsZero() {
		raw += "parent " + h.tip.String() + "\n"
	}
	raw += "author " + who + "\ncommitter " + who + "\n\n" + message + "\n"
	h.tip = h.add(plumbing.CommitObject, []byte(h.signer.Sign(h.t, raw)))
}

func (h *historian) write(r *Repo) {
	h.t.Helper()
	in, out := io.Pipe()
	go func() {
		_, err := packfile.NewEncoder(out, h.objects, false).Encode(h.ids, 0)
		out.CloseWithError(err)
	}()
	cmd := exec.Command("git", "index-pack", "--stdin")
	cmd.Dir, cmd.Stdin = r.Dir, in
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("git index-pack: %v\n%s", err, text)
	}
}
