package remote_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/repo/v1"

	"github.com/bothy-os/bothy/reconciler/flux/helm/remote"
)

const canonical = `apiVersion: v1
entries:
  other:
  - name: other
    version: 9.9.9
    urls: [x]
    description: |
      entries:
        app:
        - name: app
          version: 6.6.6
  app:
  - apiVersion: v2
    name: app
    version: 1.0.0
    description: >-
      two
      lines

    urls: [app-1.0.0.tgz]
  # a comment
  - apiVersion: v2
    name: app
    version: 1.1.0
    urls:
    - app-1.1.0.tgz
  - {name: app, version: "", urls: [x]}
  zebra:
  - name: zebra
    version: 7.7.7
    urls: [x]
generated: "2026-01-01T00:00:00Z"
`

func TestFind(t *testing.T) {
	asJSON := `{"apiVersion":"v1","entries":{"app":[{"name":"app","version":"1.0.0","urls":["a"]},{"name":"app","version":"1.1.0","urls":["a"]}]}}`
	wide := strings.ReplaceAll(canonical, "  app:\n  - apiVersion", "  \"app\":\r\n  - apiVersion")
	for name, index := range map[string]string{"canonical": canonical, "JSON": asJSON, "quoted": wide} {
		found, err := remote.Find(strings.NewReader(index), "app")
		if err != nil || len(found) != 2 || found[0].Version != "1.0.0" || found[1].Version != "1.1.0" {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	if _, err := remote.Find(strings.NewReader(canonical), "none"); !errors.Is(err, remote.ErrNoSuchChart) {
		t.Errorf("a chart that is not there: %v", err)
	}
}

func FuzzFind(f *testing.F) {
	f.Add(canonical, "app")
	f.Fuzz(func(t *testing.T, index, name string) {
		versions, err := remote.Find(strings.NewReader(index), name)
		for _, v := range versions {
			if err != nil || v.Name != name {
				t.Errorf("found %q when %q was asked for: %v", v.Name, name, err)
			}
		}
	})
}

func TestCheckIndex(t *testing.T) {
	if err := remote.CheckIndex(strings.NewReader(canonical)); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"<html>sorry</html>", "", "entries: {}"} {
		if err := remote.CheckIndex(strings.NewReader(text)); err == nil {
			t.Errorf("%q is an index", text)
		}
	}
}

func TestNewest(t *testing.T) {
	versions := []string{"1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "nonsense", "0.1.0"}
	for wanted, want := range map[string]string{
		"": "1.10.0", "*": "1.10.0", "1.x": "1.10.0", "~1.9": "1.9.0", "nonsense": "nonsense", ">=2.0.0-0": "2.0.0-rc.1", "1.0.0": "1.0.0",
	} {
		if got, err := remote.Newest(versions, wanted); err != nil || got != want {
			t.Errorf("%q: %q, %v", wanted, got, err)
		}
	}
	if _, err := remote.Newest(versions, "9.x"); !errors.Is(err, remote.ErrNoVersion) {
		t.Errorf("out of range: %v", err)
	}
	if _, err := remote.Newest(versions, "=>"); err == nil {
		t.Error("nonsense is a range")
	}
}

// Credentials go to the host they are for, and elsewhere only if that was asked
// for.
func TestCredentialsStayHome(t *testing.T) {
	content := []byte("chart")
	seen := map[string]string{}
	handler := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen[name], _, _ = r.BasicAuth()
			_, _ = w.Write(content)
		})
	}
	home, away := httptest.NewServer(handler("home")), httptest.NewServer(handler("away"))
	defer home.Close()
	defer away.Close()
	entry := func(url string) *repo.ChartVersion {
		v := &repo.ChartVersion{URLs: []string{url}, Digest: fmt.Sprintf("%x", sha256.Sum256(content))}
		return v
	}
	for _, everywhere := range []bool{false, true} {
		r, err := remote.NewRepository(home.URL+"/charts", remote.Access{Username: "me", Password: "secret"}, everywhere)
		if err != nil {
			t.Fatal(err)
		}
		for _, url := range []string{"a.tgz", away.URL + "/a.tgz"} {
			v := entry(url)
			v.Metadata = metadata()
			if _, err := r.FetchChart(context.Background(), v); err != nil {
				t.Fatal(err)
			}
		}
		if seen["home"] != "me" || (seen["away"] == "me") != everywhere {
			t.Errorf("everywhere %t: %v", everywhere, seen)
		}
		r.Close()
	}
}

func TestErrorsAreDiscreet(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := strings.Replace(server.URL, "http://", "http://user:hunter2@", 1) + "/x?token=hunter2"
	r, err := remote.NewRepository(address, remote.Access{}, false)
	if err != nil {
		t.Fatal(err)
	}
	_, _, answered := r.FetchIndex(context.Background(), remote.Validators{}, &strings.Builder{})
	server.Close()
	_, _, refused := r.FetchIndex(context.Background(), remote.Validators{}, &strings.Builder{})
	for _, err := range []error{answered, refused} {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}

func TestDigestIsChecked(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "tampered") }))
	defer server.Close()
	r, err := remote.NewRepository(server.URL, remote.Access{}, false)
	if err != nil {
		t.Fatal(err)
	}
	v := &repo.ChartVersion{Metadata: metadata(), URLs: []string{"a.tgz"}, Digest: fmt.Sprintf("%x", sha256.Sum256([]byte("original")))}
	if _, err := r.FetchChart(context.Background(), v); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("error %v", err)
	}
}

func metadata() *chart.Metadata { return &chart.Metadata{Name: "app", Version: "1.0.0"} }
