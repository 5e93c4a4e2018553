package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// slackMessage is what Slack and its kin (Mattermost, Rocket.Chat, Discord's
// /slack addresses) take.
type slackMessage struct {
	Channel     string            `json:"channel,omitempty"`
	Username    string            `json:"username,omitempty"`
	Attachments []slackAttachment `json:"attachments"`
}

type slackAttachment struct {
	Fallback   string       `json:"fallback,omitempty"`
	Color      string       `json:"color"`
	AuthorName string       `json:"author_name"`
	Text       string       `json:"text"`
	MrkdwnIn   []string     `json:"mrkdwn_in"`
	Fields     []slackField `json:"fields"`
}

type slackField struct {
	Title string `json:"title"`
	Value string `json:"value"`
	Short bool   `json:"short"`
}

// title is how chats name the object: kind/name.namespace.
func title(e events.Event) string {
	o := e.InvolvedObject
	return fmt.Sprintf("%s/%s.%s", strings.ToLower(o.Kind), o.Name, o.Namespace)
}

func failed(e events.Event) bool { return e.Severity == eventv1.EventSeverityError }

func keys(e events.Event) []string { return slices.Sorted(maps.Keys(e.Metadata)) }

func newSlackMessage(t *target, e events.Event) slackMessage {
	m := slackMessage{Channel: t.channel, Username: t.username}
	if m.Username == "" {
		m.Username = e.ReportingController
	}
	first, _, _ := strings.Cut(e.Message, "\n")
	a := slackAttachment{
		Fallback: title(e) + ": " + first, Color: "good", AuthorName: title(e),
		Text: e.Message, MrkdwnIn: []string{"text"}, Fields: []slackField{},
	}
	if failed(e) {
		a.Color = "danger"
	}
	for _, key := range keys(e) {
		a.Fields = append(a.Fields, slackField{Title: key, Value: e.Metadata[key]})
	}
	m.Attachments = []slackAttachment{a}
	return m
}

func sendSlack(ctx context.Context, t *target, e events.Event) error {
	answer, err := t.request(ctx, http.MethodPost, t.address, newSlackMessage(t, e), t.authorise)
	if err != nil || !strings.HasSuffix(t.address, "/api/chat.postMessage") {
		return err
	}
	// This one method answers 200 whatever happened.
	var result struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return errors.New("the answer of Slack is not understood")
	}
	if !result.OK {
		return fmt.Errorf("answer of Slack: %s", result.Error)
	}
	return nil
}

func sendDiscord(ctx context.Context, t *target, e events.Event) error {
	u, err := url.Parse(t.address)
	if err != nil {
		return errors.New("the address is not a URL")
	}
	if !strings.HasSuffix(u.Path, "/slack") {
		u = u.JoinPath("slack")
	}
	m := newSlackMessage(t, e)
	m.Channel = ""
	_, err = t.request(ctx, http.MethodPost, u.String(), m, nil)
	return err
}

// element is a part of an adaptive card, which Microsoft Teams shows.
type element map[string]any

func sendTeams(ctx context.Context, t *target, e events.Event) error {
	message := element{"type": "TextBlock", "text": e.Message, "wrap": true}
	if failed(e) {
		message["color"] = "attention"
	}
	facts := []element{}
	for _, key := range keys(e) {
		facts = append(facts, element{"title": key, "value": e.Metadata[key]})
	}
	card := element{
		"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
		"msteams": element{"width": "Full"},
		"body": []element{{"type": "Container", "items": []element{
			{"type": "TextBlock", "text": title(e), "size": "large", "weight": "bolder", "wrap": true},
			message,
			{"type": "FactSet", "facts": facts},
		}}},
	}
	_, err := t.request(ctx, http.MethodPost, t.address, element{"type": "message", "attachments": []element{
		{"contentType": "application/vnd.microsoft.card.adaptive", "content": card},
	}}, nil)
	return err
}
