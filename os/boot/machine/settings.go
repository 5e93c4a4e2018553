package machine

import (
	"context"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/os/settings"
)

// servers are what the machine asks, and the address it asks from.
type servers struct {
	address, iface string
	dns, ntp       []string
}

// serversOf are those of the settings, or else of boot configuration and DHCP.
func (k *keeper) serversOf(s *settings.Settings) servers {
	uplink := k.addresses.current()
	out := servers{
		address: uplink.Address, iface: uplink.Interface,
		dns: uplink.DNS, ntp: append(slices.Clone(k.config.Network.NTP), uplink.NTP...),
	}
	if len(s.DNS) > 0 {
		out.dns = s.DNS
	}
	if len(s.NTP) > 0 {
		out.ntp = s.NTP
	}
	return out
}

// announce notes what the machine asks from now on, and returns what it asked before.
func (k *keeper) announce(now servers) (before servers) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, k.published = k.published, now
	return before
}

func (k *keeper) asked() servers {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.published
}

func (k *keeper) ntp() []string { return k.asked().ntp }

// republish tells the agent, by a new start of it, when the address or the servers are
// others. Containers and Kubernetes go on meanwhile, as far as the address allows.
func (k *keeper) republish(_ context.Context, s *settings.Settings) error {
	now := k.serversOf(s)
	before := k.announce(now)
	if reflect.DeepEqual(now, before) {
		return nil
	}
	select {
	case k.servedAnew <- struct{}{}:
	default:
	}
	if before.address == now.address && before.iface == now.iface && slices.Equal(before.dns, now.dns) {
		return nil
	}
	if err := k.publish(k.addresses.current()); err != nil {
		return err
	}
	return unix.Kill(1, RestartAgentSignal)
}

// confirmed keeps what the next start of the machine goes on with.
func (k *keeper) confirmed() {
	k.addresses.settled()
	u := k.addresses.current()
	if u.lease == nil {
		return // it is written down
	}
	if err := (&network{log: k.log}).remember(u); err != nil {
		k.log.Warn("the address was not kept", "err", err)
	}
}

// showSettings keeps the console up to date on what is tried and what was undone.
func (k *keeper) showSettings(ctx context.Context) {
	for {
		st, changed := k.engine.Status()
		line := ""
		switch {
		case st.Trial != nil:
			line = "those of commit " + short(st.Trial.Commit) + " are on trial, the old ones are back at " + st.RevertAt.UTC().Format(time.TimeOnly) + " UTC unless they prove themselves"
		case st.Undone != nil:
			line = "those of commit " + short(st.Undone.Commit) + " were undone: " + st.Undone.Reason
		case len(st.Problems) > 0:
			line = "not applied: " + strings.Join(st.Problems, "; ")
		case st.InForce.Commit != "":
			line = "those of commit " + short(st.InForce.Commit) + " are in force"
		}
		k.screen.set(func(s *state) { s.settings = line })
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// missingArguments are those of the settings that the kernel was not started with. No
// machine adds any: the boot file that has them is what firmware and TPM vouch for.
func missingArguments(s *settings.Settings) []string {
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	running := strings.Fields(string(data))
	var out []string
	for _, a := range s.KernelArguments {
		if !slices.Contains(running, a) {
			out = append(out, a)
		}
	}
	return out
}
