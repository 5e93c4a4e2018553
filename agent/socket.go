package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// coalesce is how long changes are gathered before followers hear of them.
const coalesce = 20 * time.Millisecond

// serveSocket answers HTTP on a unix socket that only root can open, until ctx
// ends.
func serveSocket(ctx context.Context, path string, handler http.Handler, ready func()) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	// Between bind and chmod the mode counts: the directory is root's alone.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: onlyRoot(handler), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }, ConnContext: withPeer}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	ready()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", path, err)
	case <-ctx.Done():
		// Followers never end by themselves.
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", path, err)
		}
		return nil
	}
}

type peerKey struct{}

// withPeer remembers who is at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid := ^uint32(0)
	if uc, ok := c.(*net.UnixConn); ok {
		if raw, err := uc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					uid = cred.Uid
				}
			})
		}
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

// onlyRoot is a second lock behind the socket's mode: a container that was
// given the directory as a volume still is somebody else.
func onlyRoot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if uid, ok := r.Context().Value(peerKey{}).(uint32); !ok || uid != 0 {
			http.Error(w, "only root may use this socket", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// statusHandler answers with the value of get; with ?follow=1 it sends a line
// of JSON now and after each change.
func statusHandler[T any](get func() T, changed func() <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		for {
			next := changed()
			if encoder.Encode(get()) != nil || r.URL.Query().Get("follow") == "" {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
			select {
			case <-time.After(coalesce):
			case <-r.Context().Done():
				return
			}
		}
	}
}

func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}
}

// call makes one request; a non-2xx answer becomes an error with its text.
func call(ctx context.Context, socket, method, path string, query url.Values) (io.ReadCloser, error) {
	return send(ctx, socket, method, path, query, nil)
}

// send is call with a body.
func send(ctx context.Context, socket, method, path string, query url.Values, content io.Reader) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "bothy", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), content)
	if err != nil {
		return nil, err
	}
	resp, err := socketClient(socket).Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		return nil, errors.New(string(text))
	}
	return resp.Body, nil
}

// follow calls visit with each status until visit returns false, ctx ends or
// the other side goes away.
func follow[T any](ctx context.Context, socket, path string, visit func(T) bool) error {
	body, err := call(ctx, socket, http.MethodGet, path, url.Values{"follow": {"1"}})
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var v T
		if err := decoder.Decode(&v); err != nil {
			return err
		}
		if !visit(v) {
			return nil
		}
	}
}
