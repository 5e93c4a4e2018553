package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/os/settings"
)

func newMachineSettings(o *options) *cobra.Command {
	var retry bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Show which settings of the repository the machine has, and which were undone",
		Long: `Show what the machine's operating system is set to: sysctls, modules, addresses, servers
and disks that spec.system of the Cluster and of the Machine name.

A change is tried first. It counts once the machine has shown that it still has what it
had before: a default route, its repository, its API. When it does not within
spec.system.revertAfter, or loses power meanwhile, the old settings are back, and the
change is not tried again until the settings change in the repository, or --retry.

In a node made by bothy up only those sysctls are set that its namespaces have to
themselves; the others are listed as ignored.`,
		Example: "  bothy machine settings\n  bothy machine settings --retry",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			if retry {
				if err := c.RetrySettings(cmd.Context()); err != nil {
					return err
				}
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w; it may be starting, see `bothy logs agent`", err)
			}
			if st.Settings == nil {
				return errors.New("the keeper of the machine's settings cannot be reached: it may be starting, see `bothy logs kernel`")
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), st.Settings)
			}
			s := styleFor(os.Stdout)
			fields(cmd.OutOrStdout(), s, "state", settingsState(s, st.Settings))
			rows := settingsRows(&st.Settings.InForce.Settings)
			if len(rows) == 0 {
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout())
			return table(cmd.OutOrStdout(), append([][]string{{"SETTING", "VALUE"}}, rows...))
		},
	}
	cmd.Flags().BoolVar(&retry, "retry", false, "try settings again that were undone")
	return cmd
}

// settingsLine is what status says of the machine's settings, "" where there is nothing to say.
func settingsLine(s style, st *settings.Status) string {
	if st.Trial == nil && st.Undone == nil && len(settingsRows(&st.InForce.Settings)) == 0 {
		return ""
	}
	return settingsState(s, st)
}

func settingsState(s style, st *settings.Status) string {
	text := "as the image has them: the repository says nothing"
	if n := len(settingsRows(&st.InForce.Settings)); n > 0 {
		text = fmt.Sprintf("%d in force, of commit %s", n, short(st.InForce.Commit))
		if st.InForce.Since != nil {
			text += ", since " + ago(*st.InForce.Since)
		}
	}
	if t := st.Trial; t != nil {
		text += "\n" + s.warn("those of commit "+short(t.Commit)+" are on trial")
		if st.RevertAt != nil {
			text += fmt.Sprintf(": undone in %s unless these work: %s", time.Until(*st.RevertAt).Round(time.Second), strings.Join(t.Needs, ", "))
		}
	}
	if u := st.Undone; u != nil {
		text += "\n" + s.bad("those of commit "+short(u.Commit)+" were undone "+ago(u.At)) + ": " + u.Reason
	}
	for _, p := range st.Problems {
		text += "\n" + s.bad("not applied") + ": " + p
	}
	if len(st.AfterUpdate) > 0 {
		text += "\n" + s.warn("the boot file lacks") + " " + strings.Join(st.AfterUpdate, " ") + ": name an image in spec.os.image that `bothy os build --append` has made with it"
	}
	if len(st.Ignored) > 0 {
		text += "\nno effect on this machine, which is not bothy's own: " + strings.Join(st.Ignored, ", ")
	}
	return text
}

// settingsRows are settings, each with its name in the repository.
func settingsRows(s *settings.Settings) [][]string {
	var rows [][]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("hostname", s.Hostname)
	for _, name := range slices.Sorted(maps.Keys(s.Sysctls)) {
		add("sysctls."+strings.ReplaceAll(name, "/", "."), s.Sysctls[name])
	}
	add("modules", strings.Join(s.Modules, " "))
	add("kernelArguments", strings.Join(s.KernelArguments, " "))
	add("dns", strings.Join(s.DNS, " "))
	add("ntp", strings.Join(s.NTP, " "))
	for _, n := range s.Interfaces {
		words := slices.Clone(n.Addresses)
		if n.DHCP {
			words = append(words, "dhcp")
		}
		if n.Uplink {
			words = append(words, "uplink")
		}
		if n.Gateway != "" {
			words = append(words, "via "+n.Gateway)
		}
		for _, r := range n.Routes {
			words = append(words, r.To+" via "+r.Via)
		}
		if n.MTU > 0 {
			words = append(words, fmt.Sprintf("mtu %d", n.MTU))
		}
		name := n.Name
		if n.VLAN > 0 {
			name += fmt.Sprintf(".%d", n.VLAN)
		}
		add("interfaces."+name, strings.Join(append(words, "up"), ", "))
	}
	for _, d := range s.Disks {
		add("disks."+d.Name, d.Serial+d.Path)
	}
	return rows
}
