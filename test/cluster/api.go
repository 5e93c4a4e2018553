package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"sigs.k8s.io/yaml"
)

// API talks to the API server directly, for tests that make more requests per
// second than kubectl can be started.
type API struct {
	// Server is the base URL.
	Server string
	client *http.Client
}

// NewAPI makes a client from the kubeconfig.
func (k *Kubectl) NewAPI() (*API, error) {
	data, err := os.ReadFile(k.Kubeconfig)
	if err != nil {
		return nil, err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
				CAFile string `json:"certificate-authority"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert     []byte `json:"client-certificate-data"`
				CertFile string `json:"client-certificate"`
				Key      []byte `json:"client-key-data"`
				KeyFile  string `json:"client-key"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("decode %s: %w", k.Kubeconfig, err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("%s has %d clusters and %d users, want one of each", k.Kubeconfig, len(config.Clusters), len(config.Users))
	}
	cluster, user := config.Clusters[0].Cluster, config.Users[0].User
	for _, f := range []struct {
		data *[]byte
		file string
	}{{&cluster.CA, cluster.CAFile}, {&user.Cert, user.CertFile}, {&user.Key, user.KeyFile}} {
		if len(*f.data) == 0 {
			if *f.data, err = os.ReadFile(f.file); err != nil {
				return nil, err
			}
		}
	}
	pair, err := tls.X509KeyPair(user.Cert, user.Key)
	if err != nil {
		return nil, fmt.Errorf("client certificate in %s: %w", k.Kubeconfig, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cluster.CA) {
		return nil, errors.New("no CA certificate in the kubeconfig")
	}
	return &API{Server: cluster.Server, client: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
	}}, nil
}

// Do makes a request and returns the body; a status other than 2xx is an error.
func (a *API) Do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.Server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, err
}

// Close drops the connections.
func (a *API) Close() { a.client.CloseIdleConnections() }
