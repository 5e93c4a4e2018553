package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/test/cluster"
	"github.com/bothy-os/bothy/test/cluster/gitserver"
)

const password = "correct horse"

// serve makes the site's repository available over HTTPS and returns what
// `bothy up` needs to read it there.
func serve(t *testing.T, server **gitserver.Server) func(*cluster.Repo) []string {
	t.Helper()
	return func(r *cluster.Repo) []string {
		s, err := gitserver.Start(filepath.Dir(r.Bare))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		*server = s
		credentials := filepath.Join(filepath.Dir(r.Bare), "credentials.yaml")
		if err := os.WriteFile(credentials, []byte(s.Credentials(password)), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"--repo", s.URL(filepath.Base(r.Bare)), "--credentials", credentials}
	}
}

// Whatever the server does, the site stays on its last good commit, undoes drift
// from it, and says what is wrong; when the server is well again, the site
// arrives at the newest commit without being told.
func TestGitServerMisbehaves(t *testing.T) {
	var server *gitserver.Server
	s := newSite(t, serve(t, &server))
	w := watch(t, s)
	s.push(t)
	s.announce(t)()
	s.arrives(t)

	for _, c := range []struct {
		name  string
		fault gitserver.Fault
		// says are words of the error, any of which will do.
		says []string
	}{
		{"is down", gitserver.Fault{Down: true}, []string{"connection reset", "EOF"}},
		{"stalls", gitserver.Fault{Stalled: true}, []string{"next to nothing", "timeout", "deadline", "no answer"}},
		{"truncates packs", gitserver.Fault{TruncatePack: 500}, []string{"EOF", "reset", "truncated", "incomplete"}},
		{"sends packs that are not what they say", gitserver.Fault{CorruptPack: true}, []string{"pack", "zlib", "checksum", "packet", "pkt"}},
		{"does not let the site in", gitserver.Fault{Password: "another"}, []string{"auth", "credentials", "401", "denied"}},
	} {
		t.Run("the server "+c.name, func(t *testing.T) {
			before := s.newest()
			server.Misbehave(c.fault)
			round := s.push(t)
			s.complains(t, c.says)

			if err := s.has(t.Context(), before); err != nil {
				t.Errorf("the site did not stay on its last good commit: %v", err)
			}
			w.expects("keep-0")
			s.kube.Run(t, "delete", "configmap", "keep-0")
			cluster.Eventually(t, patience, "drift to be undone meanwhile", func() error { return s.has(t.Context(), before) })

			server.Misbehave(gitserver.Fault{})
			s.arrives(t)
			cluster.Eventually(t, patience, "status to say that all is well", func() error {
				st, err := s.status(t.Context())
				if err == nil && st.Git.Source.LastError != "" {
					err = errStill
				}
				return err
			})
			t.Logf("round %d arrived after the server was well again", round)
		})
	}

	t.Run("the server goes on sending after the pack", func(t *testing.T) {
		server.Misbehave(gitserver.Fault{EndlessPack: true})
		s.push(t)
		s.arrives(t) // what follows the pack is not read
		server.Misbehave(gitserver.Fault{})
	})

	t.Run("the server is slow", func(t *testing.T) {
		server.Misbehave(gitserver.Fault{BytesPerSecond: 2000})
		s.push(t)
		s.arrives(t)
		server.Misbehave(gitserver.Fault{})
	})

	w.check(t)
}

// A server that answers with another host key than the pinned one is not
// spoken to: the site stays where it is, and says which key it was shown.
func TestHostKeyChanges(t *testing.T) {
	var server *gitserver.SSH
	s := newSite(t, func(r *cluster.Repo) []string {
		server = serveSSH(t, filepath.Dir(r.Bare))
		credentials := filepath.Join(filepath.Dir(r.Bare), "credentials.yaml")
		if err := os.WriteFile(credentials, []byte(server.Credentials()), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"--repo", server.URL(filepath.Base(r.Bare)), "--credentials", credentials}
	})
	w := watch(t, s)
	s.push(t)
	s.arrives(t)

	before := s.newest()
	right, err := server.SetHostKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.push(t)
	s.complains(t, []string{ssh.FingerprintSHA256(server.HostKey().PublicKey())})
	if err := s.has(t.Context(), before); err != nil {
		t.Errorf("the site did not stay on its last good commit: %v", err)
	}

	if _, err := server.SetHostKey(right); err != nil {
		t.Fatal(err)
	}
	s.arrives(t)
	w.check(t)
}

func serveSSH(t *testing.T, dir string) *gitserver.SSH {
	t.Helper()
	server, err := gitserver.StartSSH(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// complains waits until `bothy status` says what is wrong with the server.
func (s *site) complains(t *testing.T, says []string) {
	t.Helper()
	var message string
	cluster.Eventually(t, 2*patience, "status to say what is wrong with the server", func() error {
		st, err := s.status(t.Context())
		if err != nil {
			return err
		}
		if message = st.Git.Source.LastError; message == "" || st.Git.Source.UnreachableSince == nil {
			return errQuiet
		}
		return nil
	})
	t.Logf("status says: %s", message)
	said := false
	for _, word := range says {
		said = said || strings.Contains(strings.ToLower(message), strings.ToLower(word))
	}
	if !said {
		t.Errorf("the error names none of %q: %s", says, message)
	}
	text := s.node.Run(t, "status")
	if !strings.Contains(text, s.pushed[s.accepted][:12]) || !strings.Contains(text, message[:min(len(message), 30)]) {
		t.Errorf("bothy status does not show the commit that runs and the error:\n%s", text)
	}
}
