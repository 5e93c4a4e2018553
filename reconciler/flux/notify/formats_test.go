package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bothy-os/bothy/reconciler/endpoint/webhook"
	"github.com/bothy-os/bothy/reconciler/flux/events"
)

func keyOf(o client.Object) types.NamespacedName { return client.ObjectKeyFromObject(o) }

// deliver sends one event through a provider and returns the calls that arrive.
func deliver(t *testing.T, l *listener, p *notificationv1beta3.Provider, e events.Event, kv ...string) []call {
	t.Helper()
	d, _ := newTestDispatcher(t, p, secret("token", kv...))
	if err := d.deliver(t.Context(), keyOf(p), delivery{alertFor(p, nil), e}); err != nil {
		t.Fatal(err)
	}
	return l.got()
}

func failure(e *events.Event) {
	e.Severity, e.Reason, e.Message = eventv1.EventSeverityError, meta.HealthCheckFailedReason, "Deployment/web is not ready"
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s is missing in %s", part, text)
		}
	}
}

func TestGeneric(t *testing.T) {
	l := listen(t, nil)
	got := deliver(t, l, provider("generic", l.URL+"/x"), event(nil), "headers", "X-Custom: some\nAuthorization: Basic abc\n")
	if len(got) != 1 || got[0].method != http.MethodPost || got[0].path != "/x" || got[0].header.Get("X-Custom") != "some" || got[0].header.Get("Authorization") != "Basic abc" || got[0].header.Get("Gotk-Component") != "kustomize-controller" {
		t.Fatalf("%+v", got)
	}
	var e eventv1.Event
	if err := json.Unmarshal([]byte(got[0].body), &e); err != nil || e.InvolvedObject.Name != "web" || e.Metadata["revision"] != "main@sha1:"+commit || e.Reason != "ReconciliationSucceeded" {
		t.Errorf("%v %s", err, got[0].body)
	}
}

func TestGenericHMAC(t *testing.T) {
	l := listen(t, nil)
	got := deliver(t, l, provider("generic-hmac", l.URL), event(nil), "token", testToken)
	if err := webhook.CheckHMAC(got[0].header, "X-Signature", []byte(testToken), []byte(got[0].body), "sha256"); err != nil {
		t.Error(err)
	}
}

func TestChats(t *testing.T) {
	for kind, c := range map[string]struct {
		path string
		want []string
	}{
		"slack":   {"/hook", []string{`"channel":"#ops"`, `"username":"kustomize-controller"`, `"color":"danger"`, `"author_name":"kustomization/web.apps"`, `"text":"Deployment/web is not ready"`, `{"title":"revision","value":"main@sha1:` + commit + `","short":false}`}},
		"rocket":  {"/hook", []string{`"color":"danger"`}},
		"discord": {"/hook/slack", []string{`"color":"danger"`, `"author_name":"kustomization/web.apps"`}},
		"msteams": {"/hook", []string{`"type":"AdaptiveCard"`, `"color":"attention"`, `"text":"kustomization/web.apps"`, `{"title":"revision","value":"main@sha1:` + commit + `"}`}},
	} {
		t.Run(kind, func(t *testing.T) {
			l := listen(t, nil)
			p := provider(kind, l.URL+"/hook")
			p.Spec.Channel = "#ops"
			got := deliver(t, l, p, event(failure))
			if len(got) != 1 || got[0].path != c.path || got[0].header.Get("Content-Type") != "application/json" {
				t.Fatalf("%+v", got)
			}
			contains(t, got[0].body, c.want...)
			update := event(func(e *events.Event) { e.Metadata["commit_status"] = "update" })
			if got := deliver(t, l, p, update); len(got) != 1 {
				t.Error("a chat was told that a commit is in place, which is for commit statuses")
			}
		})
	}
}

func TestSlackMethodThatAlwaysAnswersOK(t *testing.T) {
	l := listen(t, func(int, call) (int, string) { return 200, `{"ok":false,"error":"channel_not_found"}` })
	p := provider("slack", l.URL+"/api/chat.postMessage")
	d, _ := newTestDispatcher(t, p, secret("token", "token", testToken))
	err := d.deliver(t.Context(), keyOf(p), delivery{alertFor(p, nil), event(nil)})
	if err == nil || !strings.Contains(err.Error(), "channel_not_found") || l.got()[0].header.Get("Authorization") != "Bearer "+testToken {
		t.Errorf("%v %+v", err, l.got())
	}
}

func TestMonitoring(t *testing.T) {
	l := listen(t, nil)
	e := event(failure)
	e.Metadata["event.toolkit.fluxcd.io/summary"] = "of the object"
	got := deliver(t, l, provider("alertmanager", l.URL+"/api/v2/alerts"), e, "username", "am", "password", "pw")
	contains(t, got[0].body, `"alertname":"FluxKustomizationHealthcheckfailed"`, `"severity":"error"`, `"namespace":"apps"`, `"annotations":{"message":"Deployment/web is not ready","summary":"of the object"}`, `"startsAt":"`)
	if user, pw, ok := (&http.Request{Header: got[0].header}).BasicAuth(); !ok || user != "am" || pw != "pw" {
		t.Errorf("%v", got[0].header)
	}
	l = listen(t, nil)
	got = deliver(t, l, provider("grafana", l.URL+"/api/annotations/graphite"), event(nil), "token", testToken)
	contains(t, got[0].body, `"when":1700000000`, `"flux"`, `"revision: main@sha1|`+commit+`"`, `"kind: Kustomization"`)
	if got[0].header.Get("Authorization") != "Bearer "+testToken {
		t.Errorf("%v", got[0].header)
	}
}

func TestCommitStatuses(t *testing.T) {
	const name = "kustomization/web/1234abcd"
	for kind, c := range map[string]struct {
		repository string
		list, set  string
		header     string
		value      string
		good, bad  string
		present    string // what the server lists once the failure is set
	}{
		"github": {
			"/octo/site", "/api/v3/repos/octo/site/commits/" + commit + "/statuses?per_page=50", "/api/v3/repos/octo/site/statuses/" + commit,
			"Authorization", "Bearer " + testToken, `"state":"success"`, `"state":"failure"`,
			`[{"context":"other","state":"success"},{"context":"` + name + `","state":"failure","description":"health check failed"},{"context":"` + name + `","state":"success"}]`,
		},
		"gitea": {
			"/octo/site.git", "/api/v1/repos/octo/site/statuses/" + commit + "?limit=50", "/api/v1/repos/octo/site/statuses/" + commit,
			"Authorization", "token " + testToken, `"state":"success"`, `"state":"failure"`,
			`[{"context":"` + name + `","status":"failure","description":"health check failed"}]`,
		},
		"gitlab": {
			"/group/sub/site", "/api/v4/projects/group%2Fsub%2Fsite/repository/commits/" + commit + "/statuses?name=" + url.QueryEscape(name), "/api/v4/projects/group%2Fsub%2Fsite/statuses/" + commit,
			"Private-Token", testToken, `"state":"success"`, `"state":"failed"`,
			`[{"name":"` + name + `","status":"failed","description":"health check failed"}]`,
		},
		"bitbucketserver": {
			"/scm/proj/site.git", "/rest/api/latest/projects/proj/repos/site/commits/" + commit + "/builds?key=", "/rest/api/latest/projects/proj/repos/site/commits/" + commit + "/builds",
			"Authorization", "Bearer " + testToken, `"state":"SUCCESSFUL"`, `"state":"FAILED"`,
			`{"state":"FAILED","description":"health check failed"}`,
		},
	} {
		t.Run(kind, func(t *testing.T) {
			for _, step := range []struct {
				change func(*events.Event)
				listed string
				want   string
			}{
				{nil, "[]", c.good}, {failure, "[]", c.bad}, {failure, c.present, ""}, {nil, c.present, c.good},
			} {
				l := listen(t, func(_ int, one call) (int, string) {
					if one.method == http.MethodGet {
						if step.listed == "[]" && kind == "bitbucketserver" {
							return http.StatusNotFound, ""
						}
						return http.StatusOK, step.listed
					}
					return http.StatusCreated, "{}"
				})
				got := deliver(t, l, provider(kind, l.URL+c.repository), event(step.change), "token", testToken)
				if !strings.HasPrefix(got[0].path, c.list) || got[0].header.Get(c.header) != c.value {
					t.Errorf("list: %+v", got[0])
				}
				if step.want == "" {
					if len(got) != 1 {
						t.Errorf("a status that is there was set again: %+v", got[1])
					}
					continue
				}
				if len(got) != 2 || got[1].method != http.MethodPost || got[1].path != c.set || got[1].header.Get(c.header) != c.value {
					t.Fatalf("set: %+v", got)
				}
				contains(t, got[1].body, step.want)
				if kind != "bitbucketserver" {
					contains(t, got[1].body, `"`+name+`"`)
				}
			}
		})
	}
}

func TestWhichEventsAreForCommitStatuses(t *testing.T) {
	with := func(key, value string) events.Event {
		return event(func(e *events.Event) { e.Reason = "Progressing"; e.Metadata[key] = value })
	}
	for name, c := range map[string]struct {
		event events.Event
		want  bool
	}{
		"success":                   {event(nil), true},
		"failure":                   {event(failure), true},
		"an update":                 {with("commit_status", "update"), true},
		"a commit in an annotation": {with("event.toolkit.fluxcd.io/commit", commit), true},
		"some change":               {with("x", "y"), false},
	} {
		if got := suits("github", c.event); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNameOfACommitStatus(t *testing.T) {
	p := provider("github", "https://github.com/o/r")
	p.Spec.CommitStatusExpr = "(event.involvedObject.kind + '/' + event.metadata.cluster + '/' + provider.metadata.name + '/' + alert.metadata.name).lowerAscii()"
	e := event(func(e *events.Event) { e.Metadata["cluster"] = "EU-1" })
	if got, err := statusName(t.Context(), p, alertFor(p, nil), e); err != nil || got != "kustomization/eu-1/github/alert-github" {
		t.Errorf("%q %v", got, err)
	}
	p.Spec.CommitStatusExpr = "1 + 1"
	if _, err := statusName(t.Context(), p, alertFor(p, nil), e); err == nil || !strings.Contains(err.Error(), "spec.commitStatusExpr") {
		t.Errorf("%v", err)
	}
}

func TestGitAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"https://github.com/octo/site":            "https://github.com octo/site",
		"https://gitlab.example:8443/a/b/c.git":   "https://gitlab.example:8443 a/b/c",
		"ssh://git@gitea.example:2222/octo/site":  "https://gitea.example octo/site",
		"git@github.com:octo/site.git":            "https://github.com octo/site",
		"http://gitea.gitea.svc:3000/octo/site":   "http://gitea.gitea.svc:3000 octo/site",
		"https://user:pw@github.com/octo/site/":   "https://github.com octo/site",
		"https://github.com/octo":                 "",
		"github.com/octo/site":                    "",
		"file:///srv/site.git":                    "",
		"":                                        "",
		"https://github.com/../../../../etc/octo": "https://github.com etc/octo",
	} {
		g, err := parseGitAddress(text)
		got := ""
		if err == nil {
			got = fmt.Sprintf("%s %s", g.server, g.repository)
		}
		if got != want {
			t.Errorf("%s: %q, want %q (%v)", text, got, want, err)
		}
	}
}

func TestCommitOfARevision(t *testing.T) {
	for revision, want := range map[string]string{
		"main@sha1:" + commit: commit, "sha1:" + commit: commit, commit: commit, "main/" + commit: commit,
		"v1.2.3": "", "main@sha1:abc": "", "": "", "x" + commit: "",
	} {
		if got, err := commitOf(revision); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", revision, got, err)
		}
	}
}

func TestWords(t *testing.T) {
	for reason, want := range map[string]string{"HealthCheckFailed": "health check failed", "ReconciliationSucceeded": "reconciliation succeeded", "OCIArtifactPulled": "oci artifact pulled", "": ""} {
		if got := words(reason); got != want {
			t.Errorf("%s: %q", reason, got)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	away := listen(t, nil)
	redirecting := httptest.NewServer(http.RedirectHandler(away.URL, http.StatusFound))
	defer redirecting.Close()
	p := provider("gitlab", redirecting.URL+"/o/r")
	d, _ := newTestDispatcher(t, p, secret("token", "token", testToken))
	err := d.deliver(t.Context(), keyOf(p), delivery{alertFor(p, nil), event(nil)})
	if err == nil || !strings.Contains(err.Error(), "redirects are not followed") || len(away.got()) != 0 {
		t.Errorf("%v %v", err, away.got())
	}
}
