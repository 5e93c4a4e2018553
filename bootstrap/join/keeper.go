package join

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/bothy-os/bothy/bootstrap/pki"
)

const (
	// A control plane that starts beside its workers is there in seconds, one that is away may be so for long: the pause
	// is a part of the time for which it has failed.
	retryPart = 8
	retryMin  = 250 * time.Millisecond
	retryMax  = 30 * time.Second
	// clockCheck is how often the clock is looked at, which may jump.
	clockCheck = 10 * time.Minute
)

// Keeper has a worker's certificates, always.
type Keeper struct {
	// Node and Addresses are this machine's.
	Node      string
	Addresses []netip.Addr
	// Names are the certificates.
	Names  []string
	Client *Client
	Store  *pki.MemberStore
	Log    *slog.Logger

	mu      sync.Mutex
	problem error
}

// Run renews what is due until ctx ends. It is ready when there are certificates, which needs no
// control plane when those of an earlier life are still good.
func (k *Keeper) Run(ctx context.Context, ready func()) error {
	var failing time.Time // since when; zero while it works
	for ctx.Err() == nil {
		renewAt, err := k.Store.RenewAt(k.Names, k.Node, k.Addresses)
		if err == nil {
			ready()
		}
		if left := time.Until(renewAt); err == nil && left > 0 {
			sleep(ctx, min(left, clockCheck))
			continue
		}
		if err := k.join(ctx); err != nil && ctx.Err() == nil {
			k.note(err)
			if failing.IsZero() {
				failing = time.Now()
			}
			pause := min(max(time.Since(failing)/retryPart, retryMin), retryMax)
			sleep(ctx, pause+rand.N(pause/2)) // spreads machines over time
			continue
		}
		failing = time.Time{}
		k.note(nil)
	}
	return nil
}

// Problem is why certificates cannot be had at the moment, nil if they can.
func (k *Keeper) Problem() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

// note logs a problem when it is a new one.
func (k *Keeper) note(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && (k.problem == nil || k.problem.Error() != err.Error()) {
		k.Log.Warn("this machine cannot join, will try again", "err", err)
	}
	k.problem = err
}

func (k *Keeper) join(ctx context.Context) error {
	request := &Request{Node: k.Node, Addresses: k.Addresses, Certificates: map[string][]byte{}}
	var keys []*pki.Key
	for _, name := range k.Names {
		key, err := pki.NewKey(name)
		if err != nil {
			return err
		}
		keys = append(keys, key)
		request.Certificates[name] = key.Request
	}
	answer, err := k.Client.Join(ctx, request)
	if err != nil {
		return err
	}
	if err := k.Store.Put(answer.CA, keys, answer.Certificates); err != nil {
		return fmt.Errorf("keep the certificates: %w", err)
	}
	if _, err := k.Store.RenewAt(k.Names, k.Node, k.Addresses); err != nil {
		return fmt.Errorf("the certificates that the control plane has just issued cannot be used, is the clock of this machine right? %w", err)
	}
	k.Log.Info("this machine has its certificates", "certificates", k.Names)
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
