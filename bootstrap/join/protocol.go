package join

import (
	"fmt"
	"net/netip"
)

const (
	// path is versioned: a control plane is upgraded before its workers.
	path = "/v1/join"
	// maxRequest and maxAnswer bound messages, in bytes. A request for six certificates has about 3 KiB.
	maxRequest = 32 << 10
	maxAnswer  = 256 << 10
)

// Request is what a worker sends.
type Request struct {
	// Node is the name it thinks it has.
	Node string `json:"node"`
	// Addresses are those by which others reach it, as far as it knows.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Certificates are PKCS #10 requests, DER, by the names of the certificates.
	Certificates map[string][]byte `json:"certificates"`
}

// Answer is what it gets.
type Answer struct {
	// CA is the cluster's, PEM.
	CA []byte `json:"ca"`
	// Certificates are PEM, by their names.
	Certificates map[string][]byte `json:"certificates"`
}

// Refusal is an answer that says no.
type Refusal struct {
	// Reason is one word for programs, Problem says the same to people.
	Reason  Reason `json:"reason"`
	Problem string `json:"problem"`
}

// Error implements error.
func (r *Refusal) Error() string { return r.Problem }

// Reason says why a machine was refused.
type Reason string

// The reasons.
const (
	NotEnrolled Reason = "NotEnrolled"
	NotAWorker  Reason = "NotAWorker"
	WrongName   Reason = "WrongName"
	WrongServer Reason = "WrongServer"
	BadAddress  Reason = "BadAddress"
	BadRequest  Reason = "BadRequest"
	TooOften    Reason = "TooOften"
	Unavailable Reason = "Unavailable"
)

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Problem: fmt.Sprintf(format, args...)}
}
