package notify

import (
	"context"
	"crypto/sha1" //nolint:gosec // Bitbucket's keys are at most 40 characters long
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"

	notificationv1beta3 "github.com/fluxcd/notification-controller/api/v1beta3"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/cel"
	celtypes "github.com/google/cel-go/common/types"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

func isCommitStatus(kind string) bool {
	switch kind {
	case notificationv1beta3.GitHubProvider, notificationv1beta3.GitLabProvider,
		notificationv1beta3.GiteaProvider, notificationv1beta3.BitbucketServerProvider:
		return true
	}
	return false
}

// suits reports whether an event is for a kind of provider at all. Events that
// only report that a commit is in place are for commit statuses and for generic
// webhooks, not for chats; of those that report changes, commit statuses take
// failures.
func suits(kind string, e events.Event) bool {
	update := e.Metadata[eventv1.MetaCommitStatusKey] == eventv1.MetaCommitStatusUpdateValue
	switch {
	case kind == notificationv1beta3.GenericProvider, kind == notificationv1beta3.GenericHMACProvider:
		return true
	case !isCommitStatus(kind):
		return !update
	}
	return update || failed(e) || e.Metadata[eventv1.Group+"/"+eventv1.MetaCommitKey] != "" ||
		e.Reason == meta.ReconciliationSucceededReason
}

// statusExpression compiles spec.commitStatusExpr.
func statusExpression(text string) (*cel.Expression, error) {
	return cel.NewExpression(text, cel.WithCompile(), cel.WithOutputType(celtypes.StringType), cel.WithStructVariables("event", "alert", "provider"))
}

// statusName is what the status is called at the Git server: several clusters
// may report on the same commit.
func statusName(ctx context.Context, p *notificationv1beta3.Provider, a *notificationv1beta3.Alert, e events.Event) (string, error) {
	if !isCommitStatus(p.Spec.Type) {
		return "", nil
	}
	if p.Spec.CommitStatusExpr == "" {
		cluster, _, _ := strings.Cut(string(p.UID), "-")
		return strings.ToLower(e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name + "/" + cluster), nil
	}
	expression, err := statusExpression(p.Spec.CommitStatusExpr)
	if err != nil {
		return "", fmt.Errorf("spec.commitStatusExpr: %w", err)
	}
	variables := map[string]any{}
	for name, object := range map[string]any{"event": &e, "alert": a, "provider": p} {
		if variables[name], err = runtime.DefaultUnstructuredConverter.ToUnstructured(object); err != nil {
			return "", fmt.Errorf("spec.commitStatusExpr: %w", err)
		}
	}
	name, err := expression.EvaluateString(ctx, variables)
	if err != nil {
		return "", fmt.Errorf("spec.commitStatusExpr: %w", err)
	}
	return name, nil
}

// gitAddress is a repository at a Git server.
type gitAddress struct {
	server     *url.URL // without path
	repository string   // owner/name, without slashes at the ends and .git
}

func (g gitAddress) api(elements ...string) string { return g.server.JoinPath(elements...).String() }

// scpAddress is user@host:path, as git takes it.
var scpAddress = regexp.MustCompile(`^(?:[\w.-]+@)?([\w.-]+):([^/].*)$`)

func parseGitAddress(text string) (gitAddress, error) {
	if m := scpAddress.FindStringSubmatch(text); m != nil && !strings.Contains(text, "://") {
		text = "ssh://" + m[1] + "/" + m[2]
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return gitAddress{}, errors.New("is not the address of a repository, such as https://host/owner/name")
	}
	server := &url.URL{Scheme: u.Scheme, Host: u.Host}
	switch u.Scheme {
	case "https", "http":
	case "ssh":
		// The port is that of SSH.
		server.Scheme, server.Host = "https", u.Hostname()
	default:
		return gitAddress{}, fmt.Errorf("has scheme %q; write https://host/owner/name", u.Scheme)
	}
	repository := strings.TrimSuffix(strings.Trim(path.Clean(u.Path), "/"), ".git")
	if !strings.Contains(repository, "/") {
		return gitAddress{}, errors.New("does not name a repository; write https://host/owner/name")
	}
	return gitAddress{server, repository}, nil
}

// commitStatus is what is said of a commit.
type commitStatus struct {
	at      gitAddress
	commit  string
	name    string
	text    string
	failed  bool
	pending bool
}

// newCommitStatus returns nil if there is nothing to say yet.
func newCommitStatus(t *target, e events.Event) (*commitStatus, error) {
	at, err := parseGitAddress(t.address)
	if err != nil {
		return nil, fmt.Errorf("the address %w", err)
	}
	revision, _ := e.GetRevision()
	commit, err := commitOf(revision)
	if err != nil {
		return nil, err
	}
	return &commitStatus{
		at: at, commit: commit, name: t.commitStatus, text: words(e.Reason),
		failed: failed(e), pending: e.Reason == meta.ProgressingReason,
	}, nil
}

var commitPattern = regexp.MustCompile(`(?:^|[@/:])(?:sha1:|sha256:)?([0-9a-f]{40}|[0-9a-f]{64})$`)

// commitOf takes the commit out of a revision such as main@sha1:<commit>.
func commitOf(revision string) (string, error) {
	m := commitPattern.FindStringSubmatch(revision)
	if m == nil {
		return "", fmt.Errorf("the event's revision %q names no commit", revision)
	}
	return m[1], nil
}

// words takes a reason in camel case apart: HealthCheckFailed, health check
// failed.
func words(reason string) string {
	var b strings.Builder
	runes := []rune(reason)
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if begins {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func (s *commitStatus) state(success, failure string) string {
	if s.failed {
		return failure
	}
	return success
}

// listed is a status as servers list them; each fills in its own fields.
type listed struct {
	Name        string `json:"name"`    // GitLab
	Context     string `json:"context"` // GitHub, Gitea
	State       string `json:"state"`   // GitHub
	Status      string `json:"status"`  // GitLab, Gitea
	Description string `json:"description"`
}

// known reports whether the newest status of this name says the same already.
// Servers limit how many statuses a commit can have.
func (s *commitStatus) known(answer []byte, state string) bool {
	var all []listed
	if json.Unmarshal(answer, &all) != nil {
		return false
	}
	for _, one := range all {
		if one.Name == s.name || one.Context == s.name {
			return (one.State == state || one.Status == state) && one.Description == s.text
		}
	}
	return false
}

// secretToken is the token, or the password that some keep it in.
func (t *target) secretToken() (string, error) {
	switch {
	case t.token != "":
		return t.token, nil
	case t.password != "":
		return t.password, nil
	}
	return "", errors.New("the provider's Secret has no key token")
}

// sendGitHub sets a status at GitHub or GitHub Enterprise.
func sendGitHub(ctx context.Context, t *target, e events.Event) error {
	s, err := newCommitStatus(t, e)
	if err != nil || s.pending {
		return err
	}
	api := "https://api.github.com"
	if s.at.server.Host != "github.com" {
		api = s.at.api("api", "v3")
	}
	return t.setStatus(ctx, s, statusAPI{
		list:  api + "/repos/" + s.at.repository + "/commits/" + s.commit + "/statuses?per_page=50",
		set:   api + "/repos/" + s.at.repository + "/statuses/" + s.commit,
		state: s.state("success", "failure"), scheme: "Bearer",
		headers: map[string]string{"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
	})
}

// sendGitea sets a status at Gitea or Forgejo.
func sendGitea(ctx context.Context, t *target, e events.Event) error {
	s, err := newCommitStatus(t, e)
	if err != nil {
		return err
	}
	state := s.state("success", "failure")
	if s.pending {
		state = "pending"
	}
	at := s.at.api("api", "v1", "repos", s.at.repository, "statuses", s.commit)
	return t.setStatus(ctx, s, statusAPI{list: at + "?limit=50", set: at, state: state, scheme: "token"})
}

// statusAPI is how GitHub and Gitea are asked.
type statusAPI struct {
	list, set string // URLs
	state     string
	scheme    string // of the Authorization header
	headers   map[string]string
}

func (t *target) setStatus(ctx context.Context, s *commitStatus, api statusAPI) error {
	token, err := t.secretToken()
	if err != nil {
		return err
	}
	header := func(h http.Header) {
		h.Set("Authorization", api.scheme+" "+token)
		for name, value := range api.headers {
			h.Set(name, value)
		}
	}
	answer, err := t.request(ctx, http.MethodGet, api.list, nil, header)
	if err != nil {
		return fmt.Errorf("list the commit's statuses: %w", err)
	}
	if s.known(answer, api.state) {
		return nil
	}
	_, err = t.request(ctx, http.MethodPost, api.set, map[string]string{"state": api.state, "context": s.name, "description": s.text}, header)
	if err != nil {
		return fmt.Errorf("set the commit's status: %w", err)
	}
	return nil
}

// sendGitLab sets a status at GitLab.
func sendGitLab(ctx context.Context, t *target, e events.Event) error {
	s, err := newCommitStatus(t, e)
	if err != nil || s.pending {
		return err
	}
	token, err := t.secretToken()
	if err != nil {
		return err
	}
	header := func(h http.Header) { h.Set("PRIVATE-TOKEN", token) }
	state := s.state("success", "failed")
	project := s.at.api("api", "v4", "projects") + "/" + url.PathEscape(s.at.repository)
	answer, err := t.request(ctx, http.MethodGet, project+"/repository/commits/"+s.commit+"/statuses?name="+url.QueryEscape(s.name), nil, header)
	if err != nil {
		return fmt.Errorf("list the commit's statuses: %w", err)
	}
	if s.known(answer, state) {
		return nil
	}
	_, err = t.request(ctx, http.MethodPost, project+"/statuses/"+s.commit, map[string]string{"state": state, "name": s.name, "description": s.text}, header)
	if err != nil {
		return fmt.Errorf("set the commit's status: %w", err)
	}
	return nil
}

// sendBitbucketServer sets a build status at Bitbucket Server or Data Center.
func sendBitbucketServer(ctx context.Context, t *target, e events.Event) error {
	s, err := newCommitStatus(t, e)
	if err != nil || s.pending {
		return err
	}
	project, name, ok := bitbucketRepository(s.at.repository)
	if !ok {
		return errors.New("the address is not one of Bitbucket Server; write https://host/scm/project/name")
	}
	if t.token == "" && (t.login == "" || t.password == "") {
		return errors.New("the provider's Secret has neither token nor username and password")
	}
	sum := sha1.Sum([]byte(s.name)) //nolint:gosec // see the import
	build := map[string]string{
		"key": hex.EncodeToString(sum[:]), "state": s.state("SUCCESSFUL", "FAILED"), "url": t.address, "description": s.text,
		// Bitbucket shows the name only.
		"name": strings.ToLower(e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name) + " [" + s.text + "]",
	}
	at := s.at.api("rest", "api", "latest", "projects", project, "repos", name, "commits", s.commit, "builds")
	answer, err := t.request(ctx, http.MethodGet, at+"?key="+build["key"], nil, t.authorise)
	if err == nil {
		var now map[string]any
		if json.Unmarshal(answer, &now) == nil && now["state"] == build["state"] && now["description"] == build["description"] {
			return nil
		}
	} else if !strings.Contains(err.Error(), "404") {
		return fmt.Errorf("read the commit's build status: %w", err)
	}
	if _, err := t.request(ctx, http.MethodPost, at, build, t.authorise); err != nil {
		return fmt.Errorf("set the commit's build status: %w", err)
	}
	return nil
}

// bitbucketRepository takes scm/project/name apart; personal projects are
// called ~user.
func bitbucketRepository(repository string) (project, name string, ok bool) {
	parts := strings.Split(strings.TrimPrefix(repository, "scm/"), "/")
	if len(parts) != 2 {
		return "", "", false
	}
	return parts[0], parts[1], true
}
