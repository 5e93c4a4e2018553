package agent

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/history"
)

// Client speaks to an agent over its socket.
type Client struct{ socket string }

// NewClient returns a client for the socket at path; nothing is opened yet.
func NewClient(path string) *Client { return &Client{socket: path} }

// Status returns the node's state now.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, "/v1/status", nil)
}

// Follow calls visit with the node's state now and after each change, until
// visit returns false or ctx ends. The error says that the agent went away.
func (c *Client) Follow(ctx context.Context, visit func(*Status) bool) error {
	return follow(ctx, c.socket, "/v1/status", func(s Status) bool { return visit(&s) })
}

// Kubeconfig returns an administrator's kubeconfig with everything inside.
func (c *Client) Kubeconfig(ctx context.Context) ([]byte, error) {
	body, err := call(ctx, c.socket, http.MethodGet, "/v1/kubeconfig", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// Reconcile makes the agent fetch from the repository now. With wait it
// returns when what was fetched has been applied, or refused.
func (c *Client) Reconcile(ctx context.Context, wait bool) error {
	query := url.Values{}
	if wait {
		query.Set("wait", "1")
	}
	body, err := call(ctx, c.socket, http.MethodPost, "/v1/reconcile", query)
	if err != nil {
		return err
	}
	return body.Close()
}

// RetryOS has the machine forget that an image of the operating system did not work.
func (c *Client) RetryOS(ctx context.Context, digest string) error {
	body, err := call(ctx, c.socket, http.MethodPost, "/v1/os/retry", url.Values{"digest": {digest}})
	if err != nil {
		return err
	}
	return body.Close()
}

// History returns the newest commits that the site accepted, newest first; 0
// means all that are known.
func (c *Client) History(ctx context.Context, limit int) ([]history.Entry, error) {
	entries, err := get[[]history.Entry](ctx, c, "/v1/history", url.Values{"limit": {strconv.Itoa(limit)}})
	if err != nil {
		return nil, err
	}
	return *entries, nil
}

// Preview tells what files, a tar archive of a repository, would change on the
// site; without them, what the commit rev would.
func (c *Client) Preview(ctx context.Context, rev string, files io.Reader) (*reconciler.Preview, error) {
	body, err := send(ctx, c.socket, http.MethodPost, "/v1/diff", url.Values{"rev": {rev}}, files)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	p := &reconciler.Preview{}
	return p, json.NewDecoder(body).Decode(p)
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	body, err := call(ctx, c.socket, http.MethodGet, path, query)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	v := new(T)
	return v, json.NewDecoder(body).Decode(v)
}
