package endpoint

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

func TestPushFetchAndPushAgain(t *testing.T) {
	r, key := signedRepo(t)
	site := newSite(t, key)
	s := serve(t, Config{Boot: tokens(), Acceptor: site, MachineName: "node-1"})
	first := r.Head()

	out, err := s.git(r.Dir, "push", s.url(testToken), "main")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, head := site.Head(); head != first {
		t.Fatalf("head %q after pushing %s\n%s", head, first, out)
	}
	if !strings.Contains(out, "remote: accepted: this is now the cluster") {
		t.Errorf("git showed %q", out)
	}

	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := s.git("", "clone", "-q", s.url(testToken), clone); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	runGit(t, clone, "fsck", "--strict")
	if got := strings.TrimSpace(runGit(t, clone, "rev-parse", "refs/remotes/origin/HEAD")); got != first {
		t.Errorf("the clone is at %s", got)
	}

	r.Write("clusters/a/kustomization.yaml", "resources: [a.yaml]\n")
	r.Write("clusters/a/a.yaml", strings.Repeat("# a\n", 1000))
	second := r.Commit(key, "second")
	if out, err := s.git(r.Dir, "push", "-o", "ci.skip", s.url(testToken), "main"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = s.git(clone, "fetch", "--verbose", "origin")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := strings.TrimSpace(runGit(t, clone, "rev-parse", "origin/main")); got != second {
		t.Errorf("fetched %s, want %s\n%s", got, second, out)
	}
	runGit(t, clone, "fsck", "--strict")

	out, err = s.git(r.Dir, "push", s.url(testToken), "main")
	if err != nil || !strings.Contains(out, "Everything up-to-date") {
		t.Errorf("%v %s", err, out)
	}
	st := s.Status()
	if st.LastPush == nil || st.LastPush.Who != "ci" || st.LastPush.Verdict != "accepted" || st.LastPush.Commit != second || st.LastPush.From != "127.0.0.1" {
		t.Errorf("status %+v", st.LastPush)
	}
	if log := s.log.String(); strings.Count(log, "msg=push verdict=accepted who=ci from=127.0.0.1") != 2 || strings.Contains(log, testToken) {
		t.Errorf("log: %s", log)
	}
}

func TestRefusalsAreShownByGit(t *testing.T) {
	r, key := signedRepo(t)
	mallory := gittest.SSHKey(t, "mallory")
	first := r.Head()
	r.Write("clusters/a/a.yaml", "b: 1\n")
	second := r.Commit(key, "second")
	push := func(refspec ...string) func(*served) (string, error) {
		return func(s *served) (string, error) {
			return s.git(r.Dir, append([]string{"push", s.url(testToken)}, refspec...)...)
		}
	}
	branch := func(name string, from string, commit func()) string {
		r.Git("checkout", "-q", "-B", name, from)
		commit()
		r.Git("checkout", "-q", "main")
		return name
	}
	unsigned := branch("unsigned", second, func() { r.Write("clusters/a/x", "1"); r.Commit(nil, "unsigned") })
	unknown := branch("unknown", second, func() { r.Write("clusters/a/x", "2"); r.Commit(mallory, "by mallory") })
	sibling := branch("sibling", first, func() { r.Write("clusters/a/x", "3"); r.Commit(key, "sibling") })
	good := branch("good", second, func() { r.Write("clusters/a/x", "4"); r.Commit(key, "legitimate") })

	for name, c := range map[string]struct {
		push func(*served) (string, error)
		want []string
	}{
		"unsigned":         {push(unsigned + ":main"), []string{"! [remote rejected]", "refused by rule: signature", "remote:   problem: commit", "remote:   remedy:"}},
		"unknown signer":   {push(unknown + ":main"), []string{"refused by rule: signature"}},
		"forced sibling":   {push("+" + sibling + ":main"), []string{"refused by rule: descent"}},
		"forced back":      {push("+" + first + ":main"), []string{"refused by rule: descent"}},
		"unforced sibling": {push(sibling + ":main"), []string{"[rejected]"}},
		"another branch":   {push(good + ":feature"), []string{"only refs/heads/main", "remedy:  push to it: git push URL HEAD:main"}},
		"a tag":            {push(good + ":refs/tags/v1"), []string{"only refs/heads/main"}},
		"two references":   {push(good+":main", good+":other"), []string{"only one reference"}},
		"deletion":         {push(":main"), []string{"no deletion", "the branch of a site cannot be deleted"}},
	} {
		t.Run(name, func(t *testing.T) {
			site := newSite(t, key)
			s := serve(t, Config{Boot: tokens(), Acceptor: site})
			if out, err := push(second + ":refs/heads/main")(s); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := c.push(s)
			if err == nil {
				t.Errorf("git push succeeded")
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is missing in\n%s", want, out)
				}
			}
			if _, head := site.Head(); head != second {
				t.Errorf("the branch moved to %s", head)
			}
			if out, err := push(good + ":main")(s); err != nil {
				t.Errorf("a legitimate push afterwards: %v\n%s", err, out)
			}
		})
	}
}

func TestMovedBranch(t *testing.T) {
	first, second := plumbing.NewHash(strings.Repeat("1", 40)), plumbing.NewHash(strings.Repeat("2", 40))
	command := &packp.Command{Name: "refs/heads/main", Old: first, New: second}
	if v, ok := permitted([]*packp.Command{command}, "main", second.String()); ok || v.rule != "fetch first" {
		t.Errorf("the branch moved meanwhile: %+v", v)
	}
	if v, ok := permitted([]*packp.Command{command}, "main", first.String()); !ok {
		t.Errorf("it did not: %+v", v)
	}
}

func TestLargePushes(t *testing.T) {
	r, key := signedRepo(t)
	source := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 3<<20) // more than git sends at once
	source.Read(data)
	if err := os.WriteFile(filepath.Join(r.Dir, "blob"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Git("add", "blob")
	tip := r.Commit(key, "large")

	site := newSite(t, key)
	s := serve(t, Config{Boot: tokens(), Acceptor: site, MaxPush: 1 << 20})
	out, err := s.git(r.Dir, "push", s.url(testToken), "main")
	if err == nil || !strings.Contains(out, "too large: the limit is 1048576 bytes") {
		t.Errorf("over the limit: %v\n%s", err, out)
	}
	if _, head := site.Head(); head != "" {
		t.Errorf("the branch moved to %s", head)
	}
	s = serve(t, Config{Boot: tokens(), Acceptor: site})
	if out, err := s.git(r.Dir, "push", s.url(testToken), "main"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, head := site.Head(); head != tip {
		t.Errorf("head %s", head)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := s.git("", "clone", "-q", s.url(testToken), clone); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(clone, "blob")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the clone has another blob: %v", err)
	}
}

func TestWhoMayPush(t *testing.T) {
	r, key := signedRepo(t)
	authority, certFile, keyFile := certificateFor(t, "bob@example.com")
	_, strangeCert, strangeKey := certificateFor(t, "eve")
	boot := tokens()
	boot.ClientCertificateAuthorities = authority
	site := newSite(t, key)
	s := serve(t, Config{Boot: boot, Acceptor: site})
	anonymous := s.base + "/git/site.git"

	if out, err := s.git(r.Dir, "push", anonymous, "main"); err == nil {
		t.Errorf("pushed without credentials: %s", out)
	}
	if out, err := s.git(r.Dir, "push", s.url("wrong"), "main"); err == nil || !strings.Contains(out, "Authentication failed") {
		t.Errorf("a wrong token: %v %s", err, out)
	}
	if out, err := s.git(r.Dir, "-c", "http.sslCert="+strangeCert, "-c", "http.sslKey="+strangeKey, "push", anonymous, "main"); err == nil {
		t.Errorf("pushed with a certificate of another authority: %s", out)
	}
	if out, err := git(r.Dir, "push", s.url(testToken), "main"); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("git trusted a certificate that it does not know: %s", out)
	}
	if _, head := site.Head(); head != "" {
		t.Fatalf("the branch moved to %s", head)
	}
	if out, err := s.git(r.Dir, "-c", "http.extraHeader=Authorization: Bearer "+testToken, "ls-remote", anonymous); err != nil {
		t.Errorf("a bearer token: %v %s", err, out)
	}
	if out, err := s.git(r.Dir, "-c", "http.sslCert="+certFile, "-c", "http.sslKey="+keyFile, "push", anonymous, "main"); err != nil {
		t.Fatalf("a client certificate: %v\n%s", err, out)
	}
	if st := s.Status().LastPush; st.Who != "bob@example.com" {
		t.Errorf("pushed by %q", st.Who)
	}
}

func TestWrongTokensAreTurnedAway(t *testing.T) {
	site := newSite(t, gittest.SSHKey(t, "alice"))
	s := serve(t, Config{Boot: tokens(), Acceptor: site})
	client := s.client(t)
	ask := func(token string) int {
		request, err := http.NewRequest(http.MethodGet, s.base+"/git/site.git/info/refs?service=git-upload-pack", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.SetBasicAuth("git", token)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	for range failuresAllowed {
		if code := ask("guess"); code != http.StatusUnauthorized {
			t.Fatalf("a guess: %d", code)
		}
	}
	if code := ask(testToken); code != http.StatusTooManyRequests {
		t.Errorf("after too many guesses, even the right token: %d", code)
	}
	if code := ask(""); code != http.StatusUnauthorized {
		t.Errorf("without a token: %d", code)
	}
}

// failing is an acceptor whose machine has a problem.
type failing struct{ Acceptor }

func (failing) Push(_ context.Context, _ string, pack io.Reader) error {
	if _, err := io.Copy(io.Discard, pack); err != nil {
		return err
	}
	return errors.New("write the mirror: no space left on device")
}

func TestFailureOfTheMachineIsShown(t *testing.T) {
	r, key := signedRepo(t)
	s := serve(t, Config{Boot: tokens(), Acceptor: failing{newSite(t, key)}})
	out, err := s.git(r.Dir, "push", s.url(testToken), "main")
	if err == nil || !strings.Contains(out, "no space left on device") {
		t.Errorf("%v\n%s", err, out)
	}
	if st := s.Status().LastPush; st == nil || st.Verdict != "failed" {
		t.Errorf("status %+v", st)
	}
}

func TestBrokenPackIsNotTaken(t *testing.T) {
	r, key := signedRepo(t)
	site := newSite(t, key)
	s := serve(t, Config{Boot: tokens(), Acceptor: site})
	line := strings.Repeat("0", 40) + " " + r.Head() + " refs/heads/main\x00 report-status\n"
	post := func(body []byte, encoding string) (int, string) {
		request, err := http.NewRequest(http.MethodPost, s.base+"/git/site.git/git-receive-pack", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("git", testToken)
		request.Header.Set("Content-Encoding", encoding)
		response, err := s.client(t).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	commands := fmt.Sprintf("%04x%s0000", len(line)+4, line)
	code, text := post([]byte(commands+"PACK this is none"), "")
	if code != http.StatusOK || !strings.Contains(text, "ng refs/heads/main") || strings.Contains(text, "unpack ok") {
		t.Errorf("%d %s", code, text)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := io.WriteString(z, commands+"PACK this is none"); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if code, text = post(packed.Bytes(), "gzip"); code != http.StatusOK || !strings.Contains(text, "ng refs/heads/main") || strings.Contains(text, "unpack ok") {
		t.Errorf("compressed: %d %s", code, text)
	}
	for name, bad := range map[string]string{"nothing": "", "no commands": "0000", "garbage": "GET / HTTP/1.0", "too many": strings.Repeat(fmt.Sprintf("%04x%s", len(line)+4, line), 2000)} {
		if code, text := post([]byte(bad), ""); code != http.StatusBadRequest && name != "no commands" || strings.Contains(text, "unpack ok") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, _ := post([]byte(commands), "br"); code != http.StatusBadRequest {
		t.Errorf("an unknown encoding: %d", code)
	}
	if _, head := site.Head(); head != "" {
		t.Errorf("the branch moved to %s", head)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := serve(t, Config{Boot: tokens()})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.base, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		conn.Close()
		t.Error("connected with TLS 1.1")
	}
}

func FuzzReadCommands(f *testing.F) {
	line := strings.Repeat("0", 40) + " " + strings.Repeat("a", 40) + " refs/heads/main\x00 report-status push-options\n"
	f.Add([]byte(fmt.Sprintf("%04x%s00000007key0000PACK", len(line)+4, line)))
	f.Add([]byte("0035shallow " + strings.Repeat("a", 40) + "0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		request, err := readCommands(bytes.NewReader(data))
		if err == nil && len(request.Commands) == 0 {
			t.Error("a push without commands")
		}
	})
}

func FuzzReadNegotiation(f *testing.F) {
	want := "want " + strings.Repeat("a", 40) + " multi_ack_detailed side-band-64k\n"
	f.Add([]byte(fmt.Sprintf("%04x%s00000032have %s\n0009done\n", len(want)+4, want, strings.Repeat("b", 40))))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := readNegotiation(bytes.NewReader(data))
		if err == nil && len(n.wants) == 0 {
			t.Error("a fetch of nothing")
		}
	})
}
