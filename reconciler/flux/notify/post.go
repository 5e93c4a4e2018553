package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// maxAnswer bounds what is read of an answer, in bytes: a list of statuses is
// the longest.
const maxAnswer = 1 << 20

// temporary is a failure that another attempt may not meet.
type temporary struct {
	err   error
	after time.Duration // what the server asked for
}

func (t *temporary) Error() string { return t.err.Error() }
func (t *temporary) Unwrap() error { return t.err }

func mayTryAgain(err error) (after time.Duration, ok bool) {
	var t *temporary
	if !errors.As(err, &t) {
		return 0, false
	}
	return t.after, true
}

// try makes one attempt within the provider's timeout. Its error shows no
// secrets.
func (t *target) try(ctx context.Context, deliver send, e events.Event) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	err := deliver(ctx, t, e)
	if err == nil {
		return nil
	}
	masked := errors.New(t.mask(err.Error()))
	if after, ok := mayTryAgain(err); ok {
		return &temporary{masked, after}
	}
	return masked
}

func (t *target) mask(text string) string {
	for _, secret := range t.secrets() {
		if len(secret) > 3 {
			text = strings.ReplaceAll(text, secret, "*****")
		}
	}
	return text
}

// request sends a value as JSON, or nothing if it is nil, and returns the
// answer's body.
func (t *target) request(ctx context.Context, method, address string, value any, change func(http.Header)) ([]byte, error) {
	var body []byte
	if value != nil {
		var err error
		if body, err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("encode the notification: %w", err)
		}
	}
	return t.requestBody(ctx, method, address, body, change)
}

func (t *target) requestBody(ctx context.Context, method, address string, body []byte, change func(http.Header)) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the address is not a URL")
	}
	r.Header.Set("User-Agent", "bothy")
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r.Header)
	}
	response, err := t.client.Do(r)
	if err != nil {
		return nil, &temporary{err: fmt.Errorf("%s does not answer: %w", r.URL.Host, withoutURL(err))}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, &temporary{err: fmt.Errorf("read the answer of %s: %w", r.URL.Host, withoutURL(err))}
	}
	return answer, judge(response, answer)
}

// withoutURL takes the URL, which may be a secret, out of net/http's error.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func judge(response *http.Response, answer []byte) error {
	code := response.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	err := fmt.Errorf("%s answered %s", response.Request.URL.Host, response.Status)
	if text := strings.Join(strings.Fields(string(answer)), " "); text != "" {
		err = fmt.Errorf("%w: %.200s", err, text)
	}
	switch {
	case code >= 300 && code < 400:
		return fmt.Errorf("%w; redirects are not followed: correct the address", err)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w; check the token in the provider's Secret", err)
	case code == http.StatusTooManyRequests, code >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return &temporary{err: err, after: time.Duration(max(seconds, 0)) * time.Second}
	}
	return err
}

// authorise adds the token, or name and password.
func (t *target) authorise(header http.Header) {
	switch {
	case t.token != "":
		header.Set("Authorization", "Bearer "+t.token)
	case t.login != "" && t.password != "":
		r := http.Request{Header: header}
		r.SetBasicAuth(t.login, t.password)
	}
}
