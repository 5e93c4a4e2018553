package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// ledger counts, and keeps each number in two places before it says so: in a file, synced, and
// in a ConfigMap. Over HTTP it tells the last number that both have acknowledged, and what it
// found in them when it started.
func ledger(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	file := args[0]
	namespace, name, ok := strings.Cut(args[1], "/")
	if !ok {
		return errUsage
	}
	api, err := newAPI("/api/v1/namespaces/" + namespace + "/configmaps/" + name)
	if err != nil {
		return err
	}
	var inAPI int
	for { // the dataplane or the API server may not be there yet
		if inAPI, err = api.get(ctx); err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "toolbox:", err)
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
	inFile, err := readNumber(file)
	if err != nil {
		return err
	}
	var acknowledged atomic.Int64
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "acknowledged %d, found %d in the file and %d in the API\n", acknowledged.Load(), inFile, inAPI)
	})}
	go func() { _ = server.ListenAndServe() }() // the probe notices
	for n := max(inFile, inAPI) + 1; ; n++ {
		if err := writeNumber(file, n); err != nil {
			return err
		}
		for {
			if err = api.set(ctx, n); err == nil {
				break
			}
			fmt.Fprintln(os.Stderr, "toolbox:", err)
			if !pause(ctx, time.Second) {
				return ctx.Err()
			}
		}
		acknowledged.Store(int64(n))
		if !pause(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func readNumber(file string) (int, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

func writeNumber(file string, n int) error {
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(n))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// api is one ConfigMap.
type api struct {
	client     *http.Client
	url, token string
}

func newAPI(path string) (*api, error) {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &api{
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}},
		url:    "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")) + path,
		token:  dir + "token",
	}, nil
}

func (a *api) get(ctx context.Context) (int, error) {
	body, err := a.do(ctx, http.MethodGet, nil)
	if err != nil {
		return 0, err
	}
	var object struct {
		Data map[string]string `json:"data"`
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return 0, err
	}
	if object.Data["n"] == "" {
		return 0, nil
	}
	return strconv.Atoi(object.Data["n"])
}

func (a *api) set(ctx context.Context, n int) error {
	_, err := a.do(ctx, http.MethodPatch, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n))
	return err
}

func (a *api) do(ctx context.Context, method string, content []byte) ([]byte, error) {
	token, err := os.ReadFile(a.token)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", answer.Status, body)
	}
	return body, err
}
