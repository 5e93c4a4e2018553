package figures

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table writes an aligned Markdown table.
type Table struct{ w *tabwriter.Writer }

// NewTable begins a table with its head.
func NewTable(w io.Writer, head ...string) *Table {
	t := &Table{tabwriter.NewWriter(w, 0, 0, 0, ' ', 0)}
	t.Row(head...)
	t.Row(slices.Repeat([]string{"---"}, len(head))...)
	return t
}

// Row adds a row.
func (t *Table) Row(cells ...string) { fmt.Fprintf(t.w, "| %s |\n", strings.Join(cells, "\t | ")) }

// Flush writes the table; it comes last.
func (t *Table) Flush() { _ = t.w.Flush() } // to memory or a terminal
