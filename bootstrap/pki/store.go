package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// initializedFile says that the authorities are complete: from then on they
	// are never made anew.
	initializedFile = "initialized"
	// leafWriters bounds the files being fsynced at once.
	leafWriters = 8
)

// A Certificate is what status shows of one.
type Certificate struct {
	Name     string    `json:"name"`
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"notAfter"`
}

// Store is the PKI directory of one node.
type Store struct {
	spec  Spec
	clock func() time.Time
	log   *slog.Logger

	ensuring sync.Mutex // one Ensure at a time

	mu      sync.Mutex // guards what follows
	current map[string]*x509.Certificate
	saved   time.Time // last-seen time on disk
}

// NewStore returns the store for a valid spec. clock is time.Now outside tests.
func NewStore(spec Spec, clock func() time.Time, log *slog.Logger) *Store {
	return &Store{spec: spec, clock: clock, log: log, current: map[string]*x509.Certificate{}}
}

// Ensure makes the directory complete and valid. A second call right after
// writes nothing. An error names the file and what the operator can do;
// whatever could be repaired besides has been.
func (s *Store) Ensure() error {
	s.ensuring.Lock()
	defer s.ensuring.Unlock()

	dir := s.spec.Paths.PKI()
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create PKI directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("protect PKI directory: %w", err)
	}
	now := s.now()
	cluster, frontProxy, err := s.authorities(now)
	if err != nil {
		return err
	}
	if err := s.serviceAccountKey(); err != nil {
		return err
	}
	if err := s.markInitialized(); err != nil {
		return err
	}
	for _, a := range []*authority{cluster, frontProxy} {
		if now.best.After(a.cert.NotAfter) {
			return fmt.Errorf("CA %q expired on %s: if this machine's clock (%s) is wrong, set it; otherwise the cluster needs a new CA, see docs/runbooks",
				a.cert.Subject.CommonName, a.cert.NotAfter.Format(time.DateOnly), now.clock.Format(time.RFC3339))
		}
	}
	if err := s.leaves(cluster, frontProxy, now); err != nil {
		return err
	}
	if err := s.kubeconfigs(); err != nil {
		return err
	}
	return s.saveClock(now)
}

// now reads the clock in the light of the time seen last.
func (s *Store) now() moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved.IsZero() {
		s.saved = loadLastSeen(s.spec.Paths.PKI())
	}
	return readTime(s.clock().Round(0), s.saved)
}

func (s *Store) saveClock(now moment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := now.best.Sub(s.saved); d < clockSaveEvery && d > -clockSaveEvery {
		return nil
	}
	s.saved = now.best
	return saveLastSeen(s.spec.Paths.PKI(), now.best)
}

// authorities loads both CAs, or makes them when there is no cluster yet.
func (s *Store) authorities(now moment) (cluster, frontProxy *authority, err error) {
	p := s.spec.Paths
	cluster, err = loadAuthority(p.ClusterCA(), p.ClusterCAKey())
	if err != nil {
		exists, reason := s.clusterExists()
		if exists {
			return nil, nil, fmt.Errorf("the cluster CA cannot be used (%w) although a cluster exists here (%s): restore %s and %s from a backup; to give the cluster up instead, remove %s and %s",
				err, reason, p.ClusterCA(), p.ClusterCAKey(), p.PKI(), p.Etcd())
		}
		if cluster, err = s.createAuthority("bothy cluster CA", p.ClusterCA(), p.ClusterCAKey(), now); err != nil {
			return nil, nil, err
		}
	}
	frontProxy, err = loadAuthority(p.RequestHeaderCA(), p.RequestHeaderCAKey())
	if missing(p.RequestHeaderCA()) && missing(p.RequestHeaderCAKey()) || err != nil && !s.initialized() {
		frontProxy, err = s.createAuthority("bothy front-proxy CA", p.RequestHeaderCA(), p.RequestHeaderCAKey(), now)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the front-proxy CA cannot be used: %w: restore both from a backup, or remove both %s and %s to have a new one made; only aggregated APIs depend on it",
			err, p.RequestHeaderCA(), p.RequestHeaderCAKey())
	}
	return cluster, frontProxy, nil
}

// createAuthority writes the key first: a certificate without its key would
// look like damage.
func (s *Store) createAuthority(name, certFile, keyFile string, now moment) (*authority, error) {
	a, err := newAuthority(name, now.best)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("store key of %s: %w", name, err)
	}
	if err := durable.WriteFile(certFile, a.certPEM(), 0o644); err != nil {
		return nil, fmt.Errorf("store %s: %w", name, err)
	}
	s.log.Info("created certificate authority", "name", name, "file", certFile)
	return a, nil
}

// clusterExists reports whether anything may depend on the cluster CA.
func (s *Store) clusterExists() (bool, string) {
	if s.initialized() {
		return true, s.initializedPath() + " exists"
	}
	if member := filepath.Join(s.spec.Paths.Etcd(), "member"); !missing(member) {
		return true, member + " exists"
	}
	return false, ""
}

func (s *Store) initializedPath() string {
	return filepath.Join(s.spec.Paths.PKI(), initializedFile)
}

func (s *Store) initialized() bool { return !missing(s.initializedPath()) }

func (s *Store) markInitialized() error {
	_, err := durable.WriteFileIfChanged(s.initializedPath(), nil, 0o600)
	return err
}

func (s *Store) serviceAccountKey() error {
	p := s.spec.Paths
	key, err := loadKey(p.ServiceAccountKey())
	if errors.Is(err, fs.ErrNotExist) {
		if s.initialized() {
			s.log.Warn("service account key is missing, a new one is made: tokens issued so far are no longer accepted", "file", p.ServiceAccountKey())
		}
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return fmt.Errorf("generate service account key: %w", err)
		}
		keyPEM, err := encodeKey(key)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(p.ServiceAccountKey(), keyPEM, 0o600); err != nil {
			return fmt.Errorf("store service account key: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("the service account key cannot be used: %w: restore it from a backup, or remove it to have a new one made, which invalidates the tokens of all running pods", err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encode service account public key: %w", err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if _, err := durable.WriteFileIfChanged(p.ServiceAccountPublicKey(), public, 0o644); err != nil {
		return fmt.Errorf("store service account public key: %w", err)
	}
	return nil
}

func (s *Store) leaves(cluster, frontProxy *authority, now moment) error {
	var group errgroup.Group
	group.SetLimit(leafWriters)
	for _, spec := range s.spec.leaves() {
		issuer := cluster
		if spec.frontProxy {
			issuer = frontProxy
		}
		group.Go(func() error {
			if err := s.leaf(issuer, spec, now); err != nil {
				return fmt.Errorf("certificate %s: %w", s.spec.Paths.Certificate(spec.name), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Store) leaf(issuer *authority, spec leafSpec, now moment) error {
	file := s.spec.Paths.Certificate(spec.name)
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		cert, why := issuer.judge(spec, data, now)
		if why == nil {
			s.remember(spec.name, cert)
			return nil
		}
		s.log.Info("certificate is issued anew", "file", file, "reason", why.Error())
	}
	data, cert, err := issuer.issue(spec, now)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	s.remember(spec.name, cert)
	return nil
}

func (s *Store) remember(name string, cert *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current[name] = cert
}

func (s *Store) kubeconfigs() error {
	for _, id := range s.spec.identities() {
		data, err := fileKubeconfig(s.spec.Paths, id.Name, s.spec.Server)
		if err != nil {
			return fmt.Errorf("encode kubeconfig of %s: %w", id.Name, err)
		}
		if _, err := durable.WriteFileIfChanged(s.spec.Paths.Kubeconfig(id.Name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Due reports whether Ensure has something to do by now: a leaf to renew, or
// the time to note. It touches no file, so it may be asked every minute.
func (s *Store) Due() bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := now.best.Sub(s.saved); d >= clockSaveEvery || d <= -clockSaveEvery {
		return true
	}
	for _, cert := range s.current {
		if now.clock.Before(cert.NotBefore) || now.clock.After(cert.NotAfter) || !now.best.Before(renewAt(cert)) {
			return true
		}
	}
	return false
}

// Certificates returns the leaves as of the last Ensure, in the order of the
// spec.
func (s *Store) Certificates() []Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Certificate
	for _, spec := range s.spec.leaves() {
		if cert := s.current[spec.name]; cert != nil {
			out = append(out, Certificate{Name: spec.name, Subject: cert.Subject.CommonName, NotAfter: cert.NotAfter})
		}
	}
	return out
}

func missing(file string) bool {
	_, err := os.Stat(file)
	return errors.Is(err, fs.ErrNotExist)
}
