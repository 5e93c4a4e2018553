package join

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/bootstrap/pki"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

// Objection says why the holder of a node's certificate, which the cluster CA has signed, is no part of the cluster;
// nil if it is. What counts is the commit: a certificate is good for a day, a machine that left is not.
func Objection(members roster.Roster, cert *x509.Certificate) error {
	name, isNode := strings.CutPrefix(cert.Subject.CommonName, "system:node:")
	if !isNode || !slices.Contains(cert.Subject.Organization, "system:nodes") {
		return errors.New("the certificate is not a node's")
	}
	m, found := members.ByName(name)
	identity := pki.UID(cert)
	switch {
	case !found:
		return fmt.Errorf("machine %s is not enrolled any more: its Machine object is not in the repository", clip(name))
	case !m.Worker && identity == "":
		return nil // its certificates are its own: it has the cluster's keys
	case m.Identity != identity:
		return fmt.Errorf("machine %s has another identity now: the certificate was given to an earlier one", name)
	}
	return nil
}
