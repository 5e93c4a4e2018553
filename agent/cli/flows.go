package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/netdata/flows"
)

func newFlows(o *options) *cobra.Command {
	var q flowQuery
	var present bool
	var order string
	cmd := &cobra.Command{
		Use:     "flows",
		Short:   "Watch connections as they are opened, dropped and refused, or list the present ones",
		GroupID: "look",
		Long: `Watch what becomes of connections on this node, as it happens: which flow was let
through, which packet was dropped and why, who was told no. Each line names the
ends as Kubernetes does; an address that belongs to nobody stands for itself, or
for the name by which a pod has asked for it.

  forwarded  the first packet of a flow was let through. What follows in the same
             flow is not told, so a busy connection is one line. --ends adds a line
             when a connection is closed or reset.
  dropped    a packet went no further and its sender was not told. The reason
             stands at the end; ` + "`bothy net status`" + ` explains it.
  refused    the sender was answered with a reset, an ICMP error or, if it is a
             process of the node, with ECONNREFUSED.

"via" is the Service that was asked for. A process of the node that asks for a
Service is seen twice: when it connects, and when its packets reach the pod.

The filters are evaluated where the flows are seen: what nobody asks for costs
nothing. Values of one flag are alternatives, different flags must all match. A pod
or Service is a name in any namespace, or namespace/name; * stands for any
letters. --from and --to also take an address, a range, or "outside" for
whatever is no pod, Service or node.

Ctrl-C ends it and says how many flows were seen, and how many were lost because
there were too many: then ask for less. --table lists what conntrack holds now
instead; a flow that was there before anybody watched is found there.`,
		Example: `  bothy flows --namespace shop
  bothy flows --verdict dropped,refused
  bothy flows --from shop/web-* --to outside
  bothy flows --service shop/db --port 5432 --ends
  bothy flows --reason policy-ingress -o json | jq .from
  bothy flows --table --pod web-0 --sort idle`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := q.filter()
			if err != nil {
				return err
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			if present {
				return o.showFlowTable(cmd, c, filter, order)
			}
			return o.watchFlows(cmd, c, filter)
		},
	}
	q.flags(cmd)
	cmd.Flags().BoolVar(&q.ends, "ends", false, "also tell when connections are closed or reset")
	cmd.Flags().BoolVar(&present, "table", false, "list the present flows instead of watching")
	cmd.Flags().StringVar(&order, "sort", "from", "order of --table: from, to, protocol, state or idle")
	return cmd
}

// flowQuery is a filter as flags.
type flowQuery struct {
	pods, namespaces, from, to, services, ports, protocols, verdicts, reasons []string
	ends                                                                      bool
}

func (q *flowQuery) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&q.pods, "pod", nil, "either end is this `pod`")
	f.StringSliceVarP(&q.namespaces, "namespace", "n", nil, "either end is in this `namespace`")
	f.StringSliceVar(&q.from, "from", nil, "opened by this `peer`: a pod, address, range or outside")
	f.StringSliceVar(&q.to, "to", nil, "goes to this `peer`, or asks for this Service")
	f.StringSliceVar(&q.services, "service", nil, "asks for this `service`")
	f.StringSliceVar(&q.ports, "port", nil, "goes to this `port`, or asks for this port of a Service")
	f.StringSliceVar(&q.protocols, "proto", nil, "of this `protocol`: tcp, udp, sctp, icmp, icmpv6 or a number")
	f.StringSliceVar(&q.verdicts, "verdict", nil, "with this `verdict`: forwarded, dropped or refused")
	f.StringSliceVar(&q.reasons, "reason", nil, "dropped or refused for this `reason`")
}

// filter checks what was given before anybody is asked.
func (q *flowQuery) filter() (flows.Filter, error) {
	f := flows.Filter{
		Pods: q.pods, Namespaces: q.namespaces, From: q.from, To: q.to, Services: q.services,
		Protocols: q.protocols, Reasons: q.reasons, Ends: q.ends,
	}
	for _, v := range q.verdicts {
		f.Verdicts = append(f.Verdicts, flows.Verdict(v))
	}
	query := f.Query()
	if len(q.ports) > 0 {
		query["port"] = q.ports
	}
	f, err := flows.ParseFilter(query)
	if err != nil {
		return f, fmt.Errorf("--%w", err)
	}
	return f, nil
}

func (o *options) watchFlows(cmd *cobra.Command, c *agent.Client, filter flows.Filter) error {
	ctx := cmd.Context()
	p := newFlowPrinter(cmd.OutOrStdout(), styleFor(os.Stdout), o.json())
	err := c.Flows(ctx, filter, func(line *agent.FlowLine) bool {
		if line.Lost != nil && !p.started && isTerminal(os.Stderr) {
			fmt.Fprintln(cmd.ErrOrStderr(), "watching; Ctrl-C ends it")
		}
		return p.print(line) == nil
	})
	if ctx.Err() == nil && err == nil {
		return nil // nobody reads our output any more
	}
	fmt.Fprintln(cmd.ErrOrStderr(), p.summary())
	if ctx.Err() != nil {
		return nil //nolint:nilerr // this is how it is meant to end
	}
	return fmt.Errorf("watch flows: %w", err)
}

// flowPrinter writes flows as they come.
type flowPrinter struct {
	out     io.Writer
	style   style
	json    bool
	started bool
	seen    int
	lost    flows.Lost
}

func newFlowPrinter(out io.Writer, s style, asJSON bool) *flowPrinter {
	return &flowPrinter{out: out, style: s, json: asJSON}
}

func (p *flowPrinter) print(line *agent.FlowLine) error {
	p.started = true
	if line.Lost != nil {
		p.lost = *line.Lost
	}
	if line.Flow == nil {
		return nil
	}
	p.seen++
	if p.json {
		return json.NewEncoder(p.out).Encode(line.Flow)
	}
	_, err := fmt.Fprintln(p.out, p.text(line.Flow))
	return err
}

// text is a flow in one line. Columns have no fixed widths: the names of pods have none.
func (p *flowPrinter) text(f *flows.Flow) string {
	verdict := fmt.Sprintf("%-9s", f.Verdict)
	switch f.Verdict {
	case flows.Dropped:
		verdict = p.style.bad(verdict)
	case flows.Refused:
		verdict = p.style.warn(verdict)
	default:
		verdict = p.style.good(verdict)
	}
	parts := []string{p.style.dim(f.Time.Local().Format("15:04:05.000")), verdict, fmt.Sprintf("%-4s", f.Protocol), f.From.String(), "->", p.destination(f)}
	switch {
	case f.Reason != "":
		parts = append(parts, p.style.bold(f.Reason))
		if f.Hook != "" {
			parts = append(parts, p.style.dim("("+f.Hook+")"))
		}
	case f.What != flows.Opened:
		parts = append(parts, f.What)
	}
	if f.Verdict != flows.Forwarded && f.TCPFlags != "" {
		parts = append(parts, p.style.dim(f.TCPFlags))
	}
	return strings.Join(parts, " ")
}

func (p *flowPrinter) destination(f *flows.Flow) string {
	if f.Asked == nil || f.Asked.Addr == f.To.Addr && f.Asked.Port == f.To.Port {
		return f.To.String()
	}
	return fmt.Sprintf("%s via %s", f.To, f.Asked)
}

func (p *flowPrinter) summary() string {
	text := plural(p.seen, "flow") + " seen"
	if lost := p.lost.Kernel + p.lost.Watcher; lost > 0 {
		return fmt.Sprintf("%s, %d lost: there were too many; ask for less with --pod, --verdict and the like", text, lost)
	}
	return text + ", none lost"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// idle is a time since something was seen, as precise as conntrack knows it.
func idle(d time.Duration) string { return d.Round(time.Second).String() }
