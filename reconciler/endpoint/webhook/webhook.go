// Package webhook tells whether a call of a Git server or registry is genuine,
// and what it says.
//
// It promises that secrets are compared in constant time and appear in no
// error. It must not know what the call leads to.
//
// Map: webhook.go (signatures and tokens), push.go (what the body says).
package webhook

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // some servers sign with nothing better
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strings"
)

// The errors of calls that are not genuine.
var (
	// ErrUnsigned says that the call carries nothing that could be checked.
	ErrUnsigned = errors.New("the call is not signed")
	// ErrWrong says that it is signed with another secret, or was changed.
	ErrWrong = errors.New("the signature or token does not fit the secret")
	errEmpty = errors.New("the secret is empty")
)

// CheckHMAC compares the header, "<algorithm>=<hex>" or, where algorithm names
// one, the hexadecimal digits alone, with the body's HMAC. Algorithms are sha1,
// sha256 and sha512; allowed lists those that are strong enough.
func CheckHMAC(header http.Header, name string, secret, body []byte, allowed ...string) error {
	value := header.Get(name)
	if value == "" {
		return fmt.Errorf("%w: header %s is missing", ErrUnsigned, name)
	}
	algorithm, digits, ok := strings.Cut(value, "=")
	if !ok {
		algorithm, digits = allowed[0], value
	}
	if len(secret) == 0 {
		return errEmpty
	}
	sum, err := mac(algorithm, allowed, secret, body)
	if err != nil {
		return fmt.Errorf("header %s: %w", name, err)
	}
	given, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("%w: header %s is not hexadecimal", ErrWrong, name)
	}
	if !hmac.Equal(given, sum) {
		return ErrWrong
	}
	return nil
}

func mac(algorithm string, allowed []string, secret, body []byte) ([]byte, error) {
	algorithms := map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}
	for _, name := range allowed {
		if algorithms[name] != nil && name == algorithm {
			h := hmac.New(algorithms[name], secret)
			h.Write(body)
			return h.Sum(nil), nil
		}
	}
	return nil, fmt.Errorf("%w: it is not signed with %s", ErrUnsigned, strings.Join(allowed, " or "))
}

// CheckToken compares a header with the secret. A scheme such as "Bearer" is
// cut off if it is there.
func CheckToken(header http.Header, name, scheme string, secret []byte) error {
	value := header.Get(name)
	if value == "" {
		return fmt.Errorf("%w: header %s is missing", ErrUnsigned, name)
	}
	if len(secret) == 0 {
		return errEmpty
	}
	if first, rest, ok := strings.Cut(value, " "); ok && scheme != "" && strings.EqualFold(first, scheme) {
		value = strings.TrimSpace(rest)
	}
	if subtle.ConstantTimeCompare([]byte(value), secret) != 1 {
		return ErrWrong
	}
	return nil
}
