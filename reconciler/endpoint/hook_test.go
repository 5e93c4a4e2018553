package endpoint

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/reconciler/internal/gittest"
)

const (
	githubPush = `{"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246","after":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
"repository":{"id":186853002,"name":"site","full_name":"octo/site","clone_url":"https://github.com/octo/site.git"},"pusher":{"name":"octo"},
"head_commit":{"id":"0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c","message":"Update","added":[],"removed":[],"modified":["clusters/a/a.yaml"]}}`
	githubPing = `{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"type":"Repository","events":["push"]}}`
	gitlabPush = `{"object_kind":"push","event_name":"push","ref":"refs/heads/main","checkout_sha":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
"project":{"name":"site","git_http_url":"https://gitlab.example/octo/site.git"},"total_commits_count":1}`
	giteaPush = `{"ref":"refs/heads/main","before":"28e1879d029cb852e4844d9c718537df08844e03","after":"bffeb74224043ba2feb48d137756c8a9331c449a",
"repository":{"full_name":"octo/site"},"pusher":{"login":"octo"}}`
)

const hookSecret = "hook-secret"

func signed(body string) string {
	h := hmac.New(sha256.New, []byte(hookSecret))
	h.Write([]byte(body))
	return hex.EncodeToString(h.Sum(nil))
}

func TestWebhooks(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(hookSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	form := "payload=" + url.QueryEscape(githubPush)
	for name, c := range map[string]struct {
		kind, body string
		header     map[string]string
		code       int
		triggers   bool
	}{
		"github":                  {"github", githubPush, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(githubPush)}, 202, true},
		"github as a form":        {"github", form, map[string]string{"Content-Type": "application/x-www-form-urlencoded", "X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(form)}, 202, true},
		"github ping":             {"github", githubPing, map[string]string{"X-GitHub-Event": "ping", "X-Hub-Signature-256": "sha256=" + signed(githubPing)}, 202, false},
		"github, another branch":  {"github", strings.Replace(githubPush, "heads/main", "heads/dev", 1), map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(strings.Replace(githubPush, "heads/main", "heads/dev", 1))}, 202, false},
		"github, changed":         {"github", strings.Replace(githubPush, "octo", "evil", 1), map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(githubPush)}, 401, false},
		"github, unsigned":        {"github", githubPush, map[string]string{"X-GitHub-Event": "push"}, 401, false},
		"github, weak signature":  {"github", githubPush, map[string]string{"X-Hub-Signature-256": "sha1=" + signed(githubPush)}, 401, false},
		"gitlab":                  {"gitlab", gitlabPush, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": hookSecret}, 202, true},
		"gitlab, tag":             {"gitlab", gitlabPush, map[string]string{"X-Gitlab-Event": "Tag Push Hook", "X-Gitlab-Token": hookSecret}, 202, false},
		"gitlab, wrong token":     {"gitlab", gitlabPush, map[string]string{"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "guess"}, 401, false},
		"gitea":                   {"gitea", giteaPush, map[string]string{"X-Gitea-Event": "push", "X-Gitea-Signature": signed(giteaPush)}, 202, true},
		"gitea, wrong signature":  {"gitea", giteaPush, map[string]string{"X-Gitea-Event": "push", "X-Gitea-Signature": signed("x")}, 401, false},
		"generic hmac":            {"generic-hmac", "anything", map[string]string{"X-Signature": "sha256=" + signed("anything")}, 202, true},
		"generic hmac, unsigned":  {"generic-hmac", "anything", map[string]string{}, 401, false},
		"generic":                 {"generic", "", map[string]string{"Authorization": "Bearer " + hookSecret}, 202, true},
		"generic, other branch":   {"generic", `{"ref":"refs/heads/dev"}`, map[string]string{"Authorization": "Bearer " + hookSecret}, 202, false},
		"of a kind not set up":    {"gitlab", githubPush, map[string]string{"X-GitHub-Event": "push", "X-Hub-Signature-256": "sha256=" + signed(githubPush)}, 401, false},
		"longer than is accepted": {"generic", strings.Repeat("x", maxHook+1), map[string]string{"Authorization": "Bearer " + hookSecret}, 413, false},
	} {
		t.Run(name, func(t *testing.T) {
			var triggered atomic.Int32
			boot := tokens()
			boot.Webhooks = []v1alpha1.EndpointWebhook{{Type: c.kind, SecretFile: secret}, {Type: "gitea", SecretFile: "/nowhere"}}
			s := serve(t, Config{Boot: boot, Acceptor: newSite(t, gittest.SSHKey(t, "alice")), Trigger: func() { triggered.Add(1) }})
			request, err := http.NewRequest(http.MethodPost, s.base+"/hook", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			for key, value := range c.header {
				request.Header.Set(key, value)
			}
			response, err := s.client(t).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != c.code {
				t.Errorf("%s: %s", response.Status, text)
			}
			if got := triggered.Load() == 1; got != c.triggers {
				t.Errorf("triggered: %v; %s", got, text)
			}
			if strings.Contains(s.log.String()+string(text), hookSecret) {
				t.Error("the secret was told")
			}
		})
	}
}

func TestSecretOfAWebhookCanBeRotated(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	s := serve(t, Config{Boot: &v1alpha1.BootEndpoint{Webhooks: []v1alpha1.EndpointWebhook{{Type: "gitlab", SecretFile: secret}}}})
	for _, value := range []string{"one", "two"} {
		if err := durable.WriteFile(secret, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, s.base+"/hook", strings.NewReader(gitlabPush))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Gitlab-Token", value)
		response, err := s.client(t).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			t.Errorf("secret %q: %s", value, response.Status)
		}
	}
}

func TestWrongWebhooksAreTurnedAway(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(hookSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, Config{Boot: &v1alpha1.BootEndpoint{Webhooks: []v1alpha1.EndpointWebhook{{Type: "gitlab", SecretFile: secret}}}})
	client := s.client(t)
	for i := range failuresAllowed + 1 {
		request, err := http.NewRequest(http.MethodPost, s.base+"/hook", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Gitlab-Token", "guess")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if want := i == failuresAllowed; (response.StatusCode == http.StatusTooManyRequests) != want {
			t.Errorf("guess %d: %s", i+1, response.Status)
		}
	}
}

func TestFluxReceiversAreReached(t *testing.T) {
	s := serve(t, Config{Boot: &v1alpha1.BootEndpoint{}, Hooks: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Path)
	})})
	response, err := s.client(t).Post(s.base+"/hook/0a1b", "", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "/hook/0a1b" {
		t.Errorf("%s %q %v", response.Status, text, err)
	}
}
