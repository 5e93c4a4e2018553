package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/netdata"
)

func newNet(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "net",
		Short:   "Look into the node's network: what is attached, in force, dropped, and full",
		GroupID: "look",
		Long: `Look into the node's network. The dataplane works from tables in the kernel; these
commands show the tables, not the API, so that the two can be compared.

For what happens at the moment, see ` + "`bothy flows`" + `.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newNetStatus(o), newNetServices(o), newNetEndpoints(o), newNetMetrics(o))
	return cmd
}

func newNetStatus(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the state of the network, with an explanation of what was dropped and what to do",
		Long: `Show the state of the network on this node: how programs are attached, what is in
force, how full the tables are, which packets were dropped or refused since the
node started, what that means, and what to do about it.`,
		Example: "  bothy net status\n  bothy net status -o json | jq .problems",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			r, err := c.NetworkReport(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return printNetwork(cmd.OutOrStdout(), styleFor(os.Stdout), r)
		},
	}
}

func newNetServices(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "services",
		Short: "List the service addresses that are in force, and who is behind them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			entries, err := c.ServiceTable(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), entries)
			}
			return table(cmd.OutOrStdout(), serviceRows(entries))
		},
	}
}

func newNetEndpoints(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "endpoints",
		Short: "List the pods of this node that the dataplane connects",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			entries, err := c.EndpointTable(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), entries)
			}
			return table(cmd.OutOrStdout(), endpointRows(entries))
		},
	}
}

func newNetMetrics(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print the metrics of the network and of DNS, as Prometheus reads them",
		Long: `Print the metrics of the network and of DNS in the text format of Prometheus. The
agent answers on its socket only; a collector on the machine, such as the textfile
collector of the node exporter, takes them from here.`,
		Example: "  bothy net metrics >/var/lib/node_exporter/bothy.prom.tmp && mv /var/lib/node_exporter/bothy.prom.tmp /var/lib/node_exporter/bothy.prom",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			body, err := c.Metrics(cmd.Context())
			if err != nil {
				return fmt.Errorf("ask the agent: %w", err)
			}
			defer body.Close()
			return networkMetrics(cmd.OutOrStdout(), body)
		},
	}
}

// networkMetrics copies the lines of the dataplane and of DNS, with what describes them.
func networkMetrics(out io.Writer, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "bothy_net_") && !strings.HasPrefix(name, "coredns_") {
			continue
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return lines.Err()
}

func printNetwork(w io.Writer, s style, r *netdata.Report) error {
	synced := s.good("in step with the API")
	if !r.Services.Synced {
		synced = s.warn("not read from the API yet")
	}
	names := s.good("names of the cluster answered")
	if !r.DNS.ClusterNames {
		names = s.warn("names of the cluster not answered yet")
	}
	fields(w, s,
		"backend", fmt.Sprintf("%s, %d attachments", r.Backend, len(r.Attached)),
		"uplink", fmt.Sprintf("%s, %s, MTU %d", r.Uplink, list(r.NodeIPs), r.MTU),
		"pods", fmt.Sprintf("%d, addresses of %s", r.Pods, orDash(list(r.PodRanges))),
		"services", fmt.Sprintf("%d, with %d addresses and %d backends, %s", r.Services.Services, r.Services.Frontends, r.Services.Backends, synced),
		"policies", policyLine(s, r),
		"flows", flowLine(r),
		"dns", fmt.Sprintf("%s, %s, others by %s", list(r.DNS.Addrs), names, orDash(strings.Join(r.DNS.Upstreams, ", "))),
	)
	for _, p := range r.Problems {
		text := s.bad(p.Subject) + ": " + p.What
		if p.Do != "" {
			text += "\n" + p.Do
		}
		fields(w, s, "problem", text)
	}
	if err := printDrops(w, s, r); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := table(w, tableRows(r)); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return table(w, attachmentRows(r.Attached))
}

func policyLine(s style, r *netdata.Report) string {
	if !r.Policy.Synced {
		return s.warn("not read from the API yet")
	}
	return fmt.Sprintf("%d, isolating %d addresses of pods here, revision %d, in step with the API", r.Policy.Policies, r.Policy.Isolated, r.PolicyRevision)
}

// list separates values by commas.
func list[T fmt.Stringer](values []T) string {
	texts := make([]string, 0, len(values))
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ", ")
}

func flowLine(r *netdata.Report) string {
	f := r.Flows
	line := fmt.Sprintf("%d when last swept", f.Flows)
	if f.Flows > 0 {
		line += fmt.Sprintf(": %d established, %d new, %d closing, %d closed",
			f.States["established"], f.States["new"], f.States["closing"], f.States["closed"])
	}
	if r.LostEvents > 0 {
		line += fmt.Sprintf("; `bothy flows` missed %d", r.LostEvents)
	}
	return line
}

// printDrops explains each reason once, however many places it has.
func printDrops(w io.Writer, s style, r *netdata.Report) error {
	if len(r.DropDetails) == 0 {
		_, err := fmt.Fprintln(w, "\nNothing was dropped or refused since the node started.")
		return err
	}
	fmt.Fprintln(w)
	rows := [][]string{{"DROPPED OR REFUSED", "WHERE", "COUNT"}}
	var order []string
	byReason := map[string]netdata.DropReport{}
	for _, d := range r.DropDetails {
		rows = append(rows, []string{d.Reason, d.Direction, fmt.Sprint(d.Count)})
		if _, ok := byReason[d.Reason]; !ok {
			order = append(order, d.Reason)
			byReason[d.Reason] = d
		}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, reason := range order {
		e := byReason[reason].Explanation
		fmt.Fprintf(w, "\n%s: %s\n", s.bold(reason), e.What)
		if e.Do != "" {
			fmt.Fprintf(w, "  %s\n", e.Do)
		}
	}
	return nil
}

func tableRows(r *netdata.Report) [][]string {
	rows := [][]string{{"TABLE", "ROWS", "OF", "FULL", "MEMORY"}}
	for _, f := range r.Tables {
		if f.Entries < 0 {
			rows = append(rows, []string{f.Table, "-", orDash(capacity(f.Max)), "-", kib(f.Bytes)})
			continue
		}
		rows = append(rows, []string{f.Table, fmt.Sprint(f.Entries), fmt.Sprint(f.Max), fmt.Sprintf("%d %%", f.Entries*100/max(f.Max, 1)), kib(f.Bytes)})
	}
	return rows
}

func capacity(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func kib(bytes uint64) string {
	if bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%d KiB", (bytes+1023)/1024)
}

// attachmentRows puts the pins, INTERFACE-DIRECTION or cgroup-HOOK, in a line per interface.
func attachmentRows(pins []string) [][]string {
	byDev := map[string][]string{}
	var order []string
	for _, pin := range pins {
		i := strings.LastIndex(pin, "-")
		if i < 0 {
			continue
		}
		dev, at := pin[:i], pin[i+1:]
		if dev == "cgroup" {
			dev = "sockets of the node"
		}
		if byDev[dev] == nil {
			order = append(order, dev)
		}
		byDev[dev] = append(byDev[dev], at)
	}
	slices.Sort(order)
	rows := [][]string{{"ATTACHED TO", "AT"}}
	for _, dev := range order {
		rows = append(rows, []string{dev, strings.Join(byDev[dev], ", ")})
	}
	return rows
}

func serviceRows(entries []netdata.ServiceEntry) [][]string {
	rows := [][]string{{"SERVICE", "ADDRESS", "PROTOCOL", "AFFINITY", "BACKENDS"}}
	for _, e := range entries {
		affinity := "-"
		if e.Affinity > 0 {
			affinity = e.Affinity.Round(time.Second).String()
		}
		backends := make([]string, 0, len(e.Backends))
		for _, b := range e.Backends {
			backends = append(backends, b.String())
		}
		text := strings.Join(backends, ", ")
		if text == "" {
			text = "none: refused"
		}
		rows = append(rows, []string{orDash(e.Service), e.Address.String(), e.Protocol, affinity, text})
	}
	return rows
}

func endpointRows(entries []netdata.EndpointEntry) [][]string {
	rows := [][]string{{"POD", "ADDRESS", "INTERFACE", "MAC", "IDENTITY"}}
	for _, e := range entries {
		pod := "-"
		if e.Pod != "" {
			pod = e.Namespace + "/" + e.Pod
		}
		rows = append(rows, []string{pod, e.Addr.String(), e.Interface, e.MAC, fmt.Sprint(e.Identity)})
	}
	return rows
}
