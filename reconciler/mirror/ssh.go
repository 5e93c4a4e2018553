package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/proxy"
)

var errHostKey = errors.New("the server's host key is none of those pinned for it")

// overSSH is a repository behind ssh. A connection serves one request; for a
// further one it is made anew.
type overSSH struct {
	uploadPack
	address string
	path    string
	config  *ssh.ClientConfig
	dialer  proxy.ContextDialer
	watch   *watchdog

	client *ssh.Client
	in     io.WriteCloser
	out    io.Reader
	used   bool
}

func openSSH(_ context.Context, endpoint *transport.Endpoint, creds *Credentials, watch *watchdog) (source, error) {
	if creds.SSHKey == "" || creds.KnownHosts == "" {
		return nil, errors.New("ssh needs sshKey and knownHosts in the credentials; get the server's keys with ssh-keyscan and compare them with what its operator publishes")
	}
	keys, err := creds.signers()
	if err != nil {
		return nil, err
	}
	known, err := creds.hostKeys()
	if err != nil {
		return nil, err
	}
	port := endpoint.Port
	if port == 0 {
		port = 22
	}
	s := &overSSH{address: net.JoinHostPort(strings.Trim(endpoint.Host, "[]"), strconv.Itoa(port)), path: endpoint.Path, watch: watch}
	if s.dialer, err = creds.dialer(); err != nil {
		return nil, err
	}
	user := endpoint.User
	if user == "" {
		user = "git"
	}
	s.config = &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, Timeout: handshakeTimeout,
		// Ask for a key of a kind that is pinned, not for the server's favourite.
		HostKeyAlgorithms: known.HostKeyAlgorithms(s.address),
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := known.HostKeyCallback()(host, remote, key)
			if knownhosts.IsHostKeyChanged(err) || knownhosts.IsHostUnknown(err) {
				return fmt.Errorf("%w: it shows %s %s", errHostKey, key.Type(), ssh.FingerprintSHA256(key))
			}
			return err
		},
	}
	return s, nil
}

// dialer returns what connects to a server.
func (c *Credentials) dialer() (proxy.ContextDialer, error) {
	direct := &net.Dialer{Timeout: handshakeTimeout}
	if c.Proxy == "" {
		return direct, nil
	}
	u, err := url.Parse(c.Proxy)
	if err != nil || u.Scheme != "socks5" && u.Scheme != "socks5h" {
		return nil, errors.New("proxy in the credentials: for ssh it must be socks5://host:port")
	}
	d, err := proxy.FromURL(u, direct)
	if err != nil {
		return nil, errors.New("proxy in the credentials cannot be used")
	}
	with, ok := d.(proxy.ContextDialer)
	if !ok {
		return nil, errors.New("proxy in the credentials cannot be used")
	}
	return with, nil
}

// begin connects and starts git-upload-pack.
func (s *overSSH) begin(ctx context.Context) error {
	conn, err := s.dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, s.address, s.config)
	if err != nil {
		conn.Close()
		return sshError(err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	s.client = ssh.NewClient(c, channels, requests)
	session, err := s.client.NewSession()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	if s.in, err = session.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = session.StdoutPipe(); err != nil {
		return err
	}
	if err := session.Start("git-upload-pack " + quoted(s.path)); err != nil {
		return fmt.Errorf("start git-upload-pack: %w", err)
	}
	return nil
}

// sshError names the two failures that an operator can do something about.
func sshError(err error) error {
	if errors.Is(err, errHostKey) {
		return err
	}
	if strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("%w: the server accepts none of the keys in sshKey", transport.ErrAuthenticationRequired)
	}
	return plain(err)
}

// quoted protects a path from the shell on the server.
func quoted(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

func (s *overSSH) advertise(ctx context.Context) (advertised, error) {
	if err := s.begin(ctx); err != nil {
		return advertised{}, err
	}
	return s.readAdvertised(s.watch.count(s.out))
}

func (s *overSSH) stage(ctx context.Context, m *Mirror, req request) ([]*staged, error) {
	if s.used {
		s.close()
		if _, err := s.advertise(ctx); err != nil {
			return nil, err
		}
	}
	s.used = true
	body, err := s.encode(req)
	if err != nil {
		return nil, err
	}
	if _, err := s.in.Write(body); err != nil {
		return nil, fmt.Errorf("ask for %s: %w", wanted(req.wants), err)
	}
	return s.uploadPack.stage(ctx, m, req, s.out, s.watch)
}

func (s *overSSH) close() {
	if s.client != nil {
		_ = s.client.Close()
	}
}
