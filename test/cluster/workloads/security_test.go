package workloads

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pods that could take over the node are refused by default, in any namespace
// an operator makes.
func TestPodSecurityBaselineIsEnforced(t *testing.T) {
	t.Parallel()
	k := shared.Kubectl(t)
	for name, change := range map[string][2]string{
		"privileged":   {`"name": "toolbox", "image"`, `"securityContext": {"privileged": true}, "name": "toolbox", "image"`},
		"host network": {`"spec": {`, `"spec": {"hostNetwork": true, `},
		"host path":    {`"spec": {`, `"spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}], `},
	} {
		err := k.ApplyRefused(t, strings.Replace(pod("bad", "sleep"), change[0], change[1], 1))
		if !strings.Contains(err, `violates PodSecurity "baseline`) {
			t.Errorf("%s: refused with %s", name, err)
		}
	}
}

// The content of a Secret cannot be read from the files of etcd.
func TestSecretsAreEncryptedAtRest(t *testing.T) {
	t.Parallel()
	node, _ := shared.Node(t)
	k := shared.Kubectl(t)
	const plain, secret = "marker-in-a-configmap-7b1f0c", "marker-in-a-secret-93ae54"
	k.Run(t, "create", "configmap", "plain", "--from-literal=key="+plain)
	k.Run(t, "create", "secret", "generic", "hidden", "--from-literal=key="+secret)
	var found struct{ plain, secret bool }
	err := filepath.WalkDir(filepath.Join(node.State, "etcd"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		found.plain = found.plain || bytes.Contains(data, []byte(plain))
		found.secret = found.secret || bytes.Contains(data, []byte(secret))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !found.plain {
		t.Error("not even the ConfigMap was found in etcd's files: this test looks in the wrong place")
	}
	if found.secret {
		t.Error("the Secret is readable in etcd's files")
	}
	if got := k.Run(t, "get", "secret", "hidden", "-o", "jsonpath={.data.key}"); got == "" {
		t.Error("the Secret cannot be read back")
	}
}

// Without credentials nothing but health is to be seen, and old TLS is refused.
func TestAnonymousSeesHealthOnly(t *testing.T) {
	t.Parallel()
	node, up := shared.Node(t)
	server := strings.TrimSpace(node.Kubectl(t).Run(t, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"))
	if !strings.Contains(server, up.NodeIP) {
		t.Errorf("the kubeconfig's server is %s, the node's address %s", server, up.NodeIP)
	}
	get := func(path string, config *tls.Config) (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+path, nil)
		if err != nil {
			return 0, err
		}
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config}}).Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	// The certificate is not what this test is about.
	modern := &tls.Config{InsecureSkipVerify: true}
	for path, want := range map[string][]int{
		"/livez": {200}, "/readyz": {200}, "/api": {401, 403}, "/metrics": {401, 403}, "/version": {401, 403}, "/api/v1/namespaces/kube-system/secrets": {401, 403},
	} {
		got, err := get(path, modern)
		if err != nil || (got != want[0] && got != want[len(want)-1]) {
			t.Errorf("GET %s without credentials: %d, %v; want one of %v", path, got, err, want)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if code, err := get("/livez", old); err == nil {
		t.Errorf("TLS 1.1 was accepted, with status %d", code)
	}
}
