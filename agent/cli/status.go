package cli

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/images/gate"
	"github.com/bothy-os/bothy/images/policy"
	"github.com/bothy-os/bothy/internal/supervise"
	"github.com/bothy-os/bothy/reconciler"
	"github.com/bothy-os/bothy/reconciler/endpoint"
)

func newStatus(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show what the node runs, and which commit, signed by whom",
		GroupID: "look",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			show := func(st *agent.Status) error {
				others, err := o.workers(cmd.Context())
				if err != nil {
					return err
				}
				if o.json() {
					return printJSON(cmd.OutOrStdout(), allStatus{Status: st, Nodes: statuses(others)})
				}
				s := styleFor(os.Stdout)
				if err := printStatus(cmd.OutOrStdout(), s, st); err != nil || len(others) == 0 {
					return err
				}
				return printNodes(cmd.OutOrStdout(), s, st, others)
			}
			if !watch {
				st, err := c.Status(cmd.Context())
				if err != nil {
					return fmt.Errorf("ask the agent: %w; it may be starting, see `bothy logs agent`", err)
				}
				return show(st)
			}
			return c.Follow(cmd.Context(), func(st *agent.Status) bool {
				if isTerminal(os.Stdout) && !o.json() {
					fmt.Print("\x1b[H\x1b[2J")
				}
				return show(st) == nil
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show again after each change")
	return cmd
}

// allStatus is what `bothy status -o json` prints.
type allStatus struct {
	*agent.Status
	// Nodes are the further nodes on the state directory that can be asked.
	Nodes []*agent.Status `json:"nodes,omitempty"`
}

func printStatus(w io.Writer, s style, st *agent.Status) error {
	ready := s.good("Ready")
	if !st.Node.Ready {
		ready = s.bad("not Ready") + ": " + st.Node.Reason
	}
	fields(w, s, "node", fmt.Sprintf("%s at %s, %s, Kubernetes %s, started %s", st.Node.Name, st.Node.IP, ready, st.Node.Version.Kubernetes, ago(st.Node.Started)))
	if st.Node.Identity != "" {
		fields(w, s, "identity", st.Node.Identity)
	}
	printGit(w, s, st)
	fields(w, s, "pods", fmt.Sprintf("%d of %d ready", st.Pods.Ready, st.Pods.Total))
	if len(st.URLs) > 0 {
		fields(w, s, "answers", strings.Join(st.URLs, "\n"))
	}
	if n := st.Network; n != nil {
		fields(w, s, "network", networkLine(st))
	}
	if st.Settings != nil {
		if text := settingsLine(s, st.Settings); text != "" {
			fields(w, s, "settings", text)
		}
	}
	if st.Images != nil {
		fields(w, s, "images", imagesLine(s, st.Images))
	}
	if st.OS != nil && (st.OS.Phase != agent.OSForeign || st.OS.Message != "") {
		fields(w, s, "system", osLine(s, st.OS))
	}
	fmt.Fprintln(w)
	rows := [][]string{{"COMPONENT", "PROCESS", "STATE", "SINCE", "STARTED IN", "RESTARTS", "LAST ERROR"}}
	for _, c := range st.Components {
		took := "-"
		if c.StartTook > 0 {
			took = fmt.Sprintf("%.2f s", c.StartTook.Seconds())
		}
		rows = append(rows, []string{c.Name, c.Process, stateText(c), ago(c.Since), took, fmt.Sprint(c.Restarts), firstLine(c.LastError)})
	}
	return table(w, rows)
}

func printGit(w io.Writer, s style, st *agent.Status) {
	g := st.Git
	source := fmt.Sprintf("%s, branch %s, path %s, read %s", g.Source.URL, g.Source.Branch, g.Source.Path, agoPointer(g.Source.LastFetch))
	if g.Source.LastError != "" {
		source += "\n" + s.bad(g.Source.LastError)
		if g.Source.UnreachableSince != nil {
			source += fmt.Sprintf("\nunreachable since %s; the node goes on with what it has", ago(*g.Source.UnreachableSince))
		}
	}
	if g.Source.Suspended {
		source += "\n" + s.warn("fetching is suspended; `flux resume source git flux-system` goes on")
	}
	if len(g.Source.Sources) > 1 {
		for _, from := range g.Source.Sources {
			source += "\n" + sourceLine(s, from)
		}
	}
	fields(w, s, "repository", source)
	if e := g.Endpoint; e != nil {
		fields(w, s, "endpoint", endpointLine(s, e))
	}
	if g.Accepted == nil {
		fields(w, s, "accepted", s.warn("no commit yet"))
	} else {
		fields(w, s, "accepted", fmt.Sprintf("%s %q, %s, %s", short(g.Accepted.Commit), g.Accepted.Subject, signedBy(s, st), ago(g.Accepted.At)))
	}
	if r := g.Rejected; r != nil {
		fields(w, s, "refused", fmt.Sprintf("%s %q by %s\n%s\n%s", s.bad(short(r.Commit)), r.Subject, r.Author, s.bad(fmt.Sprintf("rule %s: ", r.Rule))+r.Problem, "remedy: "+r.Remedy))
	}
	if g.Applied != nil {
		fields(w, s, "applied", fmt.Sprintf("%s %s, in %s", short(g.Applied.Commit), ago(g.Applied.At), seconds(g.Applied.Took)))
	}
	if st.Node.Held {
		return // the node's reason says it all
	}
	if g.Phase == reconciler.PhaseFollowing {
		fields(w, s, "workloads", "applied by the control plane")
		return
	}
	workloads := fmt.Sprintf("%s: %d of %d objects ready", g.Phase, g.Objects.Ready, g.Objects.Total)
	if g.Suspended {
		workloads = s.warn("suspended") + ": changes are neither applied nor undone; `flux resume kustomization flux-system` goes on"
	}
	if g.Message != "" {
		workloads += "\n" + g.Message
	}
	for _, f := range g.Objects.Failed {
		workloads += "\n" + s.bad(f.ID.String()) + ": " + f.Problem
		if f.Remedy != "" {
			workloads += "; " + f.Remedy
		}
	}
	for _, f := range g.Objects.Pending {
		workloads += "\n" + s.warn(f.ID.String()) + ": " + f.Problem
	}
	fields(w, s, "workloads", workloads)
	for _, m := range st.Machines {
		fields(w, s, "worker", workerLine(s, m))
	}
}

// workerLine is a worker as the control plane sees it.
func workerLine(s style, m agent.MachineStatus) string {
	switch {
	case m.Ready:
		return fmt.Sprintf("%s at %s, %s", m.Name, m.Address, s.good("Ready"))
	case m.Joined:
		return fmt.Sprintf("%s at %s, %s: %s", m.Name, m.Address, s.bad("not Ready"), m.Reason)
	}
	return fmt.Sprintf("%s, %s; its identity is %s", m.Name, s.warn("has not joined yet"), m.Identity)
}

// sourceLine is one of several places with the repository.
func sourceLine(s style, from reconciler.SourceStatus) string {
	line := fmt.Sprintf("%s: %s, read %s", from.URL, from.State, agoPointer(from.LastFetch))
	if from.LastError != "" {
		line += ", " + s.bad(from.LastError)
	}
	return line
}

// endpointLine says where the site can be pushed to.
func endpointLine(s style, e *endpoint.Status) string {
	if e.Address == "" {
		return s.warn("not listening yet")
	}
	line := fmt.Sprintf("https://%s/git/site.git, certificate %s", e.Address, e.Fingerprint)
	if !e.Pushable {
		line = fmt.Sprintf("https://%s, for webhooks only, certificate %s", e.Address, e.Fingerprint)
	}
	if p := e.LastPush; p != nil {
		line += fmt.Sprintf("\nlast push %s by %s: %s %s", ago(p.At), p.Who, short(p.Commit), p.Verdict)
	}
	return line
}

// imagesLine says what may run, and what was kept out.
func imagesLine(s style, g *gate.Status) string {
	line := "any image may run: the repository has no " + policy.File
	switch {
	case g.Error != "":
		line = s.bad("nothing new may run") + ": " + g.Error
	case g.InForce:
		line = fmt.Sprintf("policy %s of commit %s, %d rules", g.Hash[:12], short(g.Commit), g.Rules)
	}
	var denied uint64
	for _, n := range g.Denied {
		denied += n
	}
	if denied > 0 && g.LastDenial != nil {
		line += fmt.Sprintf("\n%s, the last %s at %s: %s", s.warn(fmt.Sprintf("%d denied", denied)), ago(g.LastDenial.Time), g.LastDenial.Point, g.LastDenial.Reason)
	}
	return line
}

func stateText(c agent.ComponentStatus) string {
	if c.State == supervise.Waiting && len(c.WaitingFor) > 0 {
		return "waiting for " + strings.Join(c.WaitingFor, ", ")
	}
	return string(c.State)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func ranges(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "not known yet"
	}
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// networkLine sums up the dataplane: what is attached, what it carries, and
// what an operator should know.
func networkLine(st *agent.Status) string {
	n := st.Network
	line := fmt.Sprintf("%s, pods %s: %d, services: %d, flows: %d", n.Backend, ranges(n.PodRanges), n.Pods, n.Services.Services, n.Flows.Flows)
	var drops []string
	for reason, count := range n.Drops {
		if count > 0 {
			drops = append(drops, fmt.Sprintf("%s %d", reason, count))
		}
	}
	sort.Strings(drops)
	if len(drops) > 0 {
		line += "\ndropped: " + strings.Join(drops, ", ")
	}
	for _, notice := range n.Notices {
		line += "\n" + notice
	}
	return line
}
