package peer

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/internal/durable"
)

// NodesFile is the name of the list of other nodes, in the node's directory of
// images. While there is no such file the node is alone.
const NodesFile = "nodes.json"

// Node is another node of the site.
type Node struct {
	Name string `json:"name"`
	// Address is where it gives images, such as 10.0.0.2:5443.
	Address string `json:"address"`
}

// nodesDocument is what the file holds.
type nodesDocument struct {
	Nodes []Node `json:"nodes"`
}

// WriteNodes replaces the list of other nodes, unless it is the same. Nil removes
// the file; a list without nodes says that there may be some tomorrow.
func WriteNodes(file string, nodes []Node) error {
	if nodes == nil {
		return durable.Remove(file)
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	if now, found, err := ReadNodes(file); err == nil && found && slices.Equal(now, nodes) {
		return nil
	}
	return durable.WriteJSON(file, nodesDocument{nodes}, 0o600)
}

// ReadNodes returns the list of other nodes; found is false if there is no file.
func ReadNodes(file string) (nodes []Node, found bool, err error) {
	var d nodesDocument
	if err := durable.ReadJSON(file, &d); errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, fmt.Errorf("read the list of other nodes: %w", err)
	}
	return d.Nodes, true, nil
}

// after orders nodes by their names, beginning with the one after self: not
// everybody asks the same node first.
func after(nodes []Node, self string) []Node {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name > self })
	if i < 0 {
		return nodes
	}
	return slices.Concat(nodes[i:], nodes[:i])
}
