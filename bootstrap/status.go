package bootstrap

import (
	"time"

	"github.com/bothy-os/bothy/bootstrap/encryption"
	"github.com/bothy-os/bothy/bootstrap/pki"
)

// Status is the control plane's upkeep as an operator sees it.
type Status struct {
	// Certificates are this node's leaves.
	Certificates []pki.Certificate `json:"certificates,omitempty"`
	// NextExpiry is the earliest NotAfter of them.
	NextExpiry time.Time `json:"nextExpiry"`
	// EncryptionKeyCreated is when the key that encrypts Secrets was made.
	EncryptionKeyCreated time.Time `json:"encryptionKeyCreated"`
	// EncryptionStep is stable, or how far a key rotation has come.
	EncryptionStep encryption.Step `json:"encryptionStep,omitempty"`
	// EtcdBytes is the size of the database file, EtcdUsedBytes the part of it
	// in use, EtcdQuotaBytes the size at which writes are refused.
	EtcdBytes      int64 `json:"etcdBytes"`
	EtcdUsedBytes  int64 `json:"etcdUsedBytes"`
	EtcdQuotaBytes int64 `json:"etcdQuotaBytes"`
}

// Status returns what is known now. It blocks on nothing.
func (cp *ControlPlane) Status() Status {
	s := Status{
		Certificates:   cp.pki.Certificates(),
		EtcdQuotaBytes: int64(cp.etcdCfg.QuotaMiB) << 20,
	}
	for _, c := range s.Certificates {
		if s.NextExpiry.IsZero() || c.NotAfter.Before(s.NextExpiry) {
			s.NextExpiry = c.NotAfter
		}
	}
	if rotator, ok := cp.rotator.get(); ok {
		s.EncryptionStep, s.EncryptionKeyCreated = rotator.State()
	}
	if server, ok := cp.etcd.get(); ok {
		s.EtcdBytes, s.EtcdUsedBytes = server.Size()
	}
	return s
}
