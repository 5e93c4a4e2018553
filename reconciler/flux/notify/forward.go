package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/bothy-os/bothy/reconciler/flux/events"
)

// componentHeader names the controller that the event is from.
const componentHeader = "gotk-component"

// sendGeneric posts the event as it is.
func sendGeneric(ctx context.Context, t *target, e events.Event) error {
	return forward(ctx, t, e, nil)
}

// sendGenericHMAC posts the event with a signature of the body.
func sendGenericHMAC(ctx context.Context, t *target, e events.Event) error {
	if t.token == "" {
		return errors.New("the provider's Secret has no key token to sign with")
	}
	return forward(ctx, t, e, []byte(t.token))
}

func forward(ctx context.Context, t *target, e events.Event, key []byte) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode the event: %w", err)
	}
	_, err = t.requestBody(ctx, http.MethodPost, t.address, body, func(h http.Header) {
		h.Set(componentHeader, e.ReportingController)
		for name, value := range t.headers {
			h.Set(name, value)
		}
		if key != nil {
			sum := hmac.New(sha256.New, key)
			sum.Write(body)
			h.Set("X-Signature", "sha256="+hex.EncodeToString(sum.Sum(nil)))
		}
	})
	return err
}
