package gitserver

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSH serves the repositories of a directory, read only, to one deploy key. Its
// host key can change, as it does when somebody else answers in its place.
type SSH struct {
	dir      string
	address  *netlink.Addr
	listener net.Listener
	deploy   string // PEM
	client   ssh.PublicKey

	mu   sync.Mutex
	host ssh.Signer
	open map[net.Conn]bool
}

// StartSSH serves the repositories below dir. Close must be called in the end: it
// removes the address.
func StartSSH(dir string) (*SSH, error) {
	s := &SSH{dir: dir, open: map[net.Conn]bool{}}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *SSH) start() error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "deploy key of a test")
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return err
	}
	s.deploy, s.client = string(pem.EncodeToMemory(block)), signer.PublicKey()
	if s.host, err = newHostKey(); err != nil {
		return err
	}
	if s.address, err = takeAddress(); err != nil {
		return err
	}
	if s.listener, err = net.Listen("tcp", net.JoinHostPort(s.address.IP.String(), "0")); err != nil {
		return err
	}
	go s.serve()
	return nil
}

func newHostKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// URL is where nodes find a repository, given its path below the directory.
func (s *SSH) URL(repository string) string {
	return "ssh://git@" + s.listener.Addr().String() + "/" + repository
}

// Credentials is a credentials file for nodes: the deploy key, and the present
// host key as the only one that is trusted.
func (s *SSH) Credentials() string {
	line := knownhosts.Line([]string{s.listener.Addr().String()}, s.HostKey().PublicKey())
	return "sshKey: |\n  " + strings.ReplaceAll(strings.TrimSpace(s.deploy), "\n", "\n  ") + "\nknownHosts: |\n  " + line + "\n"
}

// HostKey is what the server answers with now.
func (s *SSH) HostKey() ssh.Signer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host
}

// SetHostKey answers with another key from now on, or with a new one if key is
// nil. It returns the one before. Open connections end.
func (s *SSH) SetHostKey(key ssh.Signer) (ssh.Signer, error) {
	if key == nil {
		var err error
		if key, err = newHostKey(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.host
	s.host = key
	for conn := range s.open {
		_ = conn.Close() // its session ends with an error, which is meant
	}
	return before, nil
}

func (s *SSH) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		go s.session(conn)
	}
}

func (s *SSH) session(conn net.Conn) {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(s.client.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return &ssh.Permissions{}, nil
	}}
	s.mu.Lock()
	config.AddHostKey(s.host)
	s.open[conn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
		_ = conn.Close() // the client may have done so
	}()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return // a client that does not believe the host key goes away here
	}
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for req := range requests {
			s.answer(channel, req)
		}
	}
}

// answer carries out git-upload-pack, and nothing else.
func (s *SSH) answer(channel ssh.Channel, req *ssh.Request) {
	repository, ok := uploadPack(req)
	if req.WantReply {
		_ = req.Reply(ok, nil) // the client has gone away
	}
	if !ok {
		return
	}
	defer func() { _ = channel.Close() }() // the client has gone away
	cmd := exec.Command("git", "upload-pack", filepath.Join(s.dir, filepath.Base(repository)))
	cmd.Stdin, cmd.Stdout = channel, channel
	var status struct{ Status uint32 }
	if err := cmd.Run(); err != nil {
		status.Status = 1
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(&status)) // the client has gone away
}

func uploadPack(req *ssh.Request) (repository string, ok bool) {
	var command struct{ Line string }
	if req.Type != "exec" || ssh.Unmarshal(req.Payload, &command) != nil {
		return "", false
	}
	name, argument, _ := strings.Cut(command.Line, " ")
	return strings.Trim(argument, "'/"), name == "git-upload-pack"
}

// Close ends all sessions and takes the address away.
func (s *SSH) Close() error {
	var err error
	if s.listener != nil {
		err = s.listener.Close()
		_, keyErr := s.SetHostKey(s.host) // which ends the sessions
		err = errors.Join(err, keyErr)
	}
	if returned := returnAddress(s.address); returned != nil {
		err = errors.Join(err, fmt.Errorf("remove the server's address: %w", returned))
	}
	return err
}
