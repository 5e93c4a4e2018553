package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/netdata/flows"
)

func (o *options) showFlowTable(cmd *cobra.Command, c *agent.Client, filter flows.Filter, order string) error {
	compare, ok := flowOrders[order]
	if !ok {
		return fmt.Errorf("--sort %s is not known: use from, to, protocol, state or idle", order)
	}
	entries, err := c.FlowTable(cmd.Context(), filter)
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	slices.SortStableFunc(entries, compare)
	if o.json() {
		return printJSON(cmd.OutOrStdout(), entries)
	}
	return printFlowTable(cmd.OutOrStdout(), styleFor(os.Stdout), entries)
}

// flowOrders compare entries; those that are equal stay in the order of the agent.
var flowOrders = map[string]func(a, b flows.Entry) int{
	"from":     func(a, b flows.Entry) int { return strings.Compare(a.From.String(), b.From.String()) },
	"to":       func(a, b flows.Entry) int { return strings.Compare(a.To.String(), b.To.String()) },
	"protocol": func(a, b flows.Entry) int { return strings.Compare(a.Protocol, b.Protocol) },
	"state":    func(a, b flows.Entry) int { return strings.Compare(string(a.State), string(b.State)) },
	"idle":     func(a, b flows.Entry) int { return cmp.Compare(b.Idle, a.Idle) },
}

func printFlowTable(w io.Writer, s style, entries []flows.Entry) error {
	rows := [][]string{{"PROTOCOL", "FROM", "TO", "VIA", "STATE", "IDLE", "OUTSIDE AS"}}
	for _, e := range entries {
		via := "-"
		if e.Asked != nil {
			via = e.Asked.String()
		}
		rows = append(rows, []string{
			e.Protocol, e.From.String(), e.To.String(), via, string(e.State), idle(e.Idle), orDash(e.Masquerade),
		})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, s.dim(plural(len(entries), "flow")))
	return err
}
