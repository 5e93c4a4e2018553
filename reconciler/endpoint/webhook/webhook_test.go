package webhook

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"net/http"
	"testing"
)

func TestEmptySecretsFitNothing(t *testing.T) {
	header := http.Header{"X-Token": {""}, "X-Sig": {"sha1=" + hex.EncodeToString(hmac.New(sha1.New, nil).Sum(nil))}, "X-Any": {"x"}}
	for _, name := range []string{"X-Token", "X-Any"} {
		if err := CheckToken(header, name, "", nil); err == nil {
			t.Errorf("%s: an empty secret was believed", name)
		}
	}
	if err := CheckHMAC(header, "X-Sig", nil, nil, "sha1"); err == nil {
		t.Error("a signature with an empty secret was believed")
	}
}

func TestBareDigits(t *testing.T) {
	h := hmac.New(sha1.New, []byte("s"))
	h.Write([]byte("body"))
	header := http.Header{"X-Nexus-Webhook-Signature": {hex.EncodeToString(h.Sum(nil))}}
	if err := CheckHMAC(header, "X-Nexus-Webhook-Signature", []byte("s"), []byte("body"), "sha1"); err != nil {
		t.Error(err)
	}
	if err := CheckHMAC(header, "X-Nexus-Webhook-Signature", []byte("s"), []byte("changed"), "sha1"); !errors.Is(err, ErrWrong) {
		t.Errorf("%v", err)
	}
	header.Set("X-Nexus-Webhook-Signature", "not hex")
	if err := CheckHMAC(header, "X-Nexus-Webhook-Signature", []byte("s"), []byte("body"), "sha1"); !errors.Is(err, ErrWrong) {
		t.Errorf("%v", err)
	}
}

func TestPush(t *testing.T) {
	for name, c := range map[string]struct {
		call Call
		want bool
	}{
		"says nothing":    {Call{}, true},
		"bitbucket":       {Call{Event: "repo:push"}, true},
		"branch by name":  {Call{Event: "push", Ref: "main"}, true},
		"a tag":           {Call{Event: "push", Ref: "refs/tags/main"}, false},
		"an issue":        {Call{Event: "issues"}, false},
		"a branch's name": {Call{Event: "push", Ref: "refs/heads/main2"}, false},
	} {
		if got := c.call.Push("main"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
