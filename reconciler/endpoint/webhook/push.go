package webhook

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// Call is what a Git server says.
type Call struct {
	// Event is the server's word for it, such as "push", in lower case; empty if
	// it says none.
	Event string
	// Ref is the reference that moved, such as refs/heads/main; empty if the call
	// does not say.
	Ref string
}

// eventHeaders are where servers name the event.
var eventHeaders = []string{"X-GitHub-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event", "X-Gitlab-Event", "X-Event-Key"}

// Parse reads what a genuine call says. A body that is not understood says
// nothing, which is no error: the call itself is the message.
func Parse(header http.Header, body []byte) Call {
	var c Call
	for _, name := range eventHeaders {
		if value := header.Get(name); value != "" {
			c.Event = strings.ToLower(value)
			break
		}
	}
	var payload struct {
		Ref string `json:"ref"`
	}
	if json.Unmarshal(jsonOf(header, body), &payload) == nil {
		c.Ref = payload.Ref
	}
	return c
}

// jsonOf takes the JSON out of a form, as GitHub sends it if told to.
func jsonOf(header http.Header, body []byte) []byte {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return []byte(form.Get("payload"))
}

// Push reports whether the call may be about a push to a branch: one that says
// neither event nor reference may be.
func (c Call) Push(branch string) bool {
	if c.Ref != "" && c.Ref != "refs/heads/"+branch && c.Ref != branch {
		return false
	}
	switch c.Event {
	case "", "push", "push hook", "repo:push", "repo:refs_changed", "system hook":
		return true
	}
	return false
}
