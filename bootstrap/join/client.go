package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"github.com/bothy-os/bothy/bootstrap/identity"
)

// Peer is a control plane.
type Peer struct {
	// Name is for people.
	Name    string
	Address netip.AddrPort
	// Identity is the fingerprint that it must have.
	Identity string
}

// Client asks on behalf of one machine.
type Client struct {
	Identity *identity.Identity
	// Peers are asked in turn until one answers.
	Peers []Peer
}

// Join sends a request. The error is a *Refusal, somewhere within, if a control plane said no.
func (c *Client) Join(ctx context.Context, r *Request) (*Answer, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	errs := []error{}
	for _, p := range c.Peers {
		answer, err := c.ask(ctx, p, body)
		if err == nil {
			return answer, nil
		}
		errs = append(errs, fmt.Errorf("ask control plane %s at %s: %w", p.Name, p.Address, err))
	}
	if len(errs) == 0 {
		return nil, errors.New("no Machine of the site is a control plane with an identity and an address")
	}
	return nil, errors.Join(errs...)
}

func (c *Client) ask(ctx context.Context, p Peer, body []byte) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	own, err := c.Identity.Certificate()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: pinned(own, p), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.Address.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

// pinned accepts one key at the other side, and nothing else.
func pinned(own tls.Certificate, p Peer) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{own},
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // names and issuers mean nothing here: VerifyConnection pins the key
		VerifyConnection: func(state tls.ConnectionState) error {
			got, err := identity.Peer(&state)
			if err != nil {
				return err
			}
			if got != p.Identity {
				return refuse(WrongServer, "its identity is %s, but the Machine object of %s says %s: somebody else answers at that address, or the object is not up to date", got, p.Name, p.Identity)
			}
			return nil
		},
	}
}

func readAnswer(resp *http.Response) (*Answer, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("the answer is larger than %d KiB", maxAnswer>>10)
	}
	if resp.StatusCode != http.StatusOK {
		refusal := &Refusal{}
		if json.Unmarshal(data, refusal) != nil || refusal.Problem == "" {
			return nil, fmt.Errorf("unexpected answer: %s", resp.Status)
		}
		return nil, refusal
	}
	answer := &Answer{}
	if err := json.Unmarshal(data, answer); err != nil {
		return nil, fmt.Errorf("decode the answer: %w", err)
	}
	return answer, nil
}
