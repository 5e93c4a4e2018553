package acceptance_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/acceptance"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// objects is a repository in memory, with trees that are taken as they come.
type objects map[string][]byte

func (o objects) put(kind mirror.ObjectType, data []byte) string {
	id := plumbing.ComputeHash(kind, data).String()
	o[kind.String()+id] = data
	return id
}

func (o objects) Object(kind mirror.ObjectType, id string) ([]byte, error) {
	data, ok := o[kind.String()+id]
	if !ok {
		return nil, mirror.ErrMissing
	}
	return data, nil
}

func (o objects) Tree(id string) ([]mirror.Entry, error) {
	data, err := o.Object(mirror.TreeObject, id)
	if err != nil {
		return nil, err
	}
	var out []mirror.Entry
	for line := range bytes.Lines(data) {
		var e mirror.Entry
		if _, err := fmt.Sscanf(string(line), "%s %s %s", &e.Mode, &e.ID, &e.Name); err != nil {
			return nil, mirror.ErrMalformedTree
		}
		out = append(out, e)
	}
	return out, nil
}

// FuzzVerify puts arbitrary commits, trees and trust roots on top of a signed
// one. Without a signature of the key none may be accepted.
func FuzzVerify(f *testing.F) {
	alice := gittest.NewSigner(f, "alice")
	yaml := []byte(gittest.RootYAML(1, "", &alice.Key))
	root, err := v1alpha1.DecodeTrustRoot("boot", yaml)
	if err != nil {
		f.Fatal(err)
	}
	base := objects{}
	blob := base.put(mirror.BlobObject, yaml)
	trust := base.put(mirror.TreeObject, []byte("100644 "+blob+" root.yaml\n"))
	top := base.put(mirror.TreeObject, []byte("40000 "+trust+" trust\n"))
	const who = "A <a@x> 1700000000 +0000"
	first := base.put(mirror.CommitObject, []byte(alice.Sign(f, "tree "+top+"\nauthor "+who+"\ncommitter "+who+"\n\nfirst\n")))
	boot := v1alpha1.BootTrust{Root: root}
	if _, err := acceptance.NewVerifier(base, time.Now).Verify(context.Background(), first, nil, boot); err != nil {
		f.Fatalf("the first commit: %v", err)
	}

	unsigned := "tree " + top + "\nparent " + first + "\nauthor " + who + "\ncommitter " + who + "\n\nnext\n"
	f.Add([]byte(unsigned), []byte("100644 "+blob+" a\n"), yaml, false)
	f.Add([]byte(alice.Sign(f, unsigned)[:300]), []byte("40000 "+top+" a\n"), []byte("x"), true)
	f.Add([]byte("tree "+top+"\nparent "+first+"\nparent "+first+"\nauthor "+who+"\ncommitter "+who+"\ngpgsig x\n\n"), []byte("120000 x ..\n"), []byte(""), false)
	f.Fuzz(func(t *testing.T, commit, tree, text []byte, firstBoot bool) {
		all := objects{}
		for id, data := range base {
			all[id] = data
		}
		all.put(mirror.BlobObject, text)
		all.put(mirror.TreeObject, tree)
		tip := all.put(mirror.CommitObject, commit)
		if tip == first {
			return
		}
		last := &acceptance.Point{Commit: first}
		if firstBoot {
			last = nil
		}
		got, err := acceptance.NewVerifier(all, time.Now).Verify(context.Background(), tip, last, boot)
		if err == nil {
			t.Fatalf("accepted %+v", got)
		}
	})
}
