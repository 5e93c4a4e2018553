package mirror_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/bothy-os/bothy/reconciler/internal/gittest"
	"github.com/bothy-os/bothy/reconciler/mirror"
)

// sshServer serves git-upload-pack of one repository to one key, and returns
// its address and its host key.
func sshServer(t *testing.T, dir string, client ssh.PublicKey) (string, ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.Marshal()) {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(conn, config, dir)
		}
	}()
	return l.Addr().String(), host.PublicKey()
}

func serveSSH(conn net.Conn, config *ssh.ServerConfig, dir string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for req := range requests {
			req.Reply(req.Type == "exec", nil)
			if req.Type != "exec" {
				continue
			}
			cmd := exec.Command("git", "upload-pack", dir)
			cmd.Stdin, cmd.Stdout = channel, channel
			cmd.Run()
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{}))
			channel.Close()
		}
	}
}

func TestFetchOverSSH(t *testing.T) {
	r := gittest.NewRepo(t)
	r.Write("a", "one")
	first := r.Commit(nil, "first")
	key := gittest.SSHKey(t, "deploy")
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key.Public))
	if err != nil {
		t.Fatal(err)
	}
	address, host := sshServer(t, filepath.Join(r.Dir, ".git"), public)
	private, err := os.ReadFile(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	port := address[strings.LastIndex(address, ":")+1:]
	credentials := func(hostKey ssh.PublicKey) string {
		path := filepath.Join(t.TempDir(), "credentials")
		text := "sshKey: |\n  " + strings.ReplaceAll(strings.TrimSpace(string(private)), "\n", "\n  ") +
			"\nknownHosts: |\n  [127.0.0.1]:" + port + " " + string(ssh.MarshalAuthorizedKey(hostKey))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	m := open(t, mirror.Limits{})
	remote := mirror.Remote{URL: "ssh://git@" + address + "/site.git", Branch: "main", CredentialsFile: credentials(host)}
	if tip, err := m.Fetch(context.Background(), remote); err != nil || tip != first {
		t.Fatalf("%s, %v", tip, err)
	}
	r.Write("b", "two")
	second := r.Commit(nil, "second")
	if tip, err := m.Fetch(context.Background(), remote); err != nil || tip != second {
		t.Fatalf("%s, %v", tip, err)
	}
	remote.CredentialsFile = credentials(public) // another host key
	if _, err := m.Fetch(context.Background(), remote); err == nil || !strings.Contains(err.Error(), "host key is none of those pinned") || !strings.Contains(err.Error(), ssh.FingerprintSHA256(host)) {
		t.Errorf("a server with another host key was believed: %v", err)
	}

	// Several keys may be pinned for a server, and several keys shown to it.
	other := gittest.SSHKey(t, "other")
	otherPrivate, err := os.ReadFile(other.Private)
	if err != nil {
		t.Fatal(err)
	}
	line := func(key ssh.PublicKey) string {
		return "[127.0.0.1]:" + port + " " + string(ssh.MarshalAuthorizedKey(key))
	}
	remote.CredentialsFile = ""
	remote.Credentials = &mirror.Credentials{SSHKey: string(otherPrivate) + string(private), KnownHosts: line(public) + line(host)}
	if tip, err := m.Fetch(context.Background(), remote); err != nil || tip != second {
		t.Errorf("%s, %v", tip, err)
	}
	remote.Credentials.SSHKey = string(otherPrivate)
	if _, err := m.Fetch(context.Background(), remote); err == nil || !strings.Contains(err.Error(), "accepts none of the keys") {
		t.Errorf("with another key: %v", err)
	}
}

// TestPartialCloneOverSSH needs a connection for each request.
func TestPartialCloneOverSSH(t *testing.T) {
	r, oldFile, newFile := withHistory(t)
	key := gittest.SSHKey(t, "deploy")
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key.Public))
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(key.Private)
	if err != nil {
		t.Fatal(err)
	}
	address, host := sshServer(t, filepath.Join(r.Dir, ".git"), public)
	m := open(t, mirror.Limits{})
	_, err = m.Fetch(context.Background(), mirror.Remote{URL: "ssh://git@" + address + "/site.git", Branch: "main", Credentials: &mirror.Credentials{
		SSHKey: string(private), KnownHosts: strings.Replace(address, "127.0.0.1", "[127.0.0.1]", 1) + " " + string(ssh.MarshalAuthorizedKey(host)),
	}})
	if err != nil || !m.Has(newFile) || m.Has(oldFile) {
		t.Fatalf("newest file %t, old file %t, %v", m.Has(newFile), m.Has(oldFile), err)
	}
	if data, err := m.Object(mirror.BlobObject, oldFile); err != nil || string(data) != noise(0, 50_000) {
		t.Errorf("an old file: %d bytes, %v", len(data), err)
	}
}
