package machine

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
	"github.com/bothy-os/bothy/os/reset"
)

// resetIfAsked looks for a seed volume that wants the machine to begin anew, and has it do
// so. It returns once process 1 has been told, or nobody wants that.
func (k *keeper) resetIfAsked(ctx context.Context, config *v1alpha1.BootConfig) (asked bool) {
	word, from := seedReset(config)
	if word == "" {
		return false
	}
	k.log.Warn("a seed volume wants this machine to begin anew: all that it has is lost", "from", from, "word", word)
	k.screen.set(func(s *state) {
		s.doing, s.problem, s.next = "forgetting everything, as "+from+" says", "", "leave the volume where it is"
	})
	if err := reset.Request(boot.StateDir); err != nil {
		k.log.Error("the machine cannot begin anew", "err", err)
		k.screen.set(func(s *state) { s.problem, s.next = "the machine cannot begin anew: "+err.Error(), "" })
		return false
	}
	select { // somebody may be reading
	case <-time.After(lastShown):
	case <-ctx.Done():
	}
	return unix.Kill(1, unix.SIGTERM) == nil
}

// seedReset is the word of a seed volume that this machine has not begun with, and where it
// was found.
func seedReset(kept *v1alpha1.BootConfig) (word, from string) {
	for _, device := range disks.All() {
		fstype, label, err := identify(device)
		if err != nil || !isSeed(label) {
			continue
		}
		f, err := readConfig(device, fstype)
		if err == nil && f.config.Reset != "" && f.config.Reset != kept.Reset {
			return f.config.Reset, f.from
		}
	}
	return "", ""
}

// watchSeeds looks at volumes that are there, and that are plugged in while the machine runs: for bundles, and for a wish that the
// machine begin anew, which was looked for before.
func (k *keeper) watchSeeds(ctx context.Context) {
	courier := k.newCourier()
	courier.all(ctx)
	for k.awaitChange(ctx) == nil {
		if k.resetIfAsked(ctx, k.config) {
			return
		}
		courier.all(ctx)
	}
}
