package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/reconciler/endpoint/webhook"
)

const (
	// maxHook bounds the body of a call, in bytes. GitHub's pushes of many commits
	// are the longest.
	maxHook = 4 << 20
	// hookTimeout is how long a call may take to arrive.
	hookTimeout = 15 * time.Second
)

// hook takes a call about the boot repository.
func (e *Endpoint) hook(w http.ResponseWriter, r *http.Request) {
	from := remoteHost(r)
	if len(e.cfg.Boot.Webhooks) == 0 {
		http.Error(w, "no webhooks are configured; add endpoint.webhooks to the boot configuration", http.StatusNotFound)
		return
	}
	if e.access.failures.tooMany(from) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many calls with a wrong signature from this address; wait a minute", http.StatusTooManyRequests)
		return
	}
	if !enter(r.Context(), e.hooking) {
		return
	}
	defer leave(e.hooking)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(hookTimeout)) // a test's recorder has none
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("the call is longer than %d bytes", maxHook), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "the call did not arrive whole", http.StatusBadRequest)
		return
	}
	kind, err := e.genuine(r.Header, text)
	if err != nil {
		e.access.failures.add(from)
		e.log.Warn("a webhook call was not believed", "from", from, "err", err)
		http.Error(w, "the call was not believed: "+publicReason(err), http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	branch := defaultPushBranch
	if e.cfg.Acceptor != nil {
		branch, _ = e.cfg.Acceptor.Head()
	}
	call := webhook.Parse(r.Header, text)
	if !call.Push(branch) {
		fmt.Fprintln(w, "heard, and nothing to do: it is not about a push to branch", branch)
		return
	}
	e.log.Info("webhook", "type", kind, "from", from, "event", call.Event, "ref", call.Ref)
	if e.cfg.Trigger != nil {
		e.cfg.Trigger()
	}
	fmt.Fprintln(w, "the repository is fetched now")
}

// genuine returns the type of the configured webhook that the call fits.
func (e *Endpoint) genuine(header http.Header, text []byte) (kind string, err error) {
	err = webhook.ErrUnsigned
	for _, hook := range e.cfg.Boot.Webhooks {
		secret, failed := os.ReadFile(hook.SecretFile)
		if failed != nil {
			e.log.Error("a webhook's secret cannot be read; correct endpoint.webhooks in the boot configuration", "type", hook.Type, "err", failed)
			continue
		}
		failed = check(hook.Type, header, bytes.TrimRight(secret, "\r\n"), text)
		if failed == nil {
			return hook.Type, nil
		}
		if !errors.Is(failed, webhook.ErrUnsigned) {
			err = failed
		}
	}
	return "", err
}

func check(kind string, header http.Header, secret, text []byte) error {
	switch kind {
	case v1alpha1.WebhookGitHub:
		return webhook.CheckHMAC(header, "X-Hub-Signature-256", secret, text, "sha256")
	case v1alpha1.WebhookGitLab:
		return webhook.CheckToken(header, "X-Gitlab-Token", "", secret)
	case v1alpha1.WebhookGitea:
		return webhook.CheckHMAC(header, "X-Gitea-Signature", secret, text, "sha256")
	case v1alpha1.WebhookGenericHMAC:
		return webhook.CheckHMAC(header, "X-Signature", secret, text, "sha256", "sha512")
	case v1alpha1.WebhookGeneric:
		return webhook.CheckToken(header, "Authorization", "Bearer", secret)
	}
	return fmt.Errorf("webhook type %q is not supported", kind)
}

// publicReason is what a stranger may know.
func publicReason(err error) string {
	if errors.Is(err, webhook.ErrUnsigned) {
		return "it carries no signature or token that a configured webhook could be known by"
	}
	return "its signature or token does not fit"
}
