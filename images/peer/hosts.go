package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bothy-os/bothy/internal/durable"
)

// ours is the first line of a file that may be replaced.
const ours = "# Written by bothy: the nodes of this site. Do not edit.\n"

// defaultHosts is the file for all registries that have no directory of their own.
const defaultHosts = "_default/hosts.toml"

// Identity is how this node shows other nodes who it is, and knows them.
type Identity struct {
	// CAFile vouches for the other nodes, CertFile and KeyFile are this node's.
	CAFile, CertFile, KeyFile string
}

// WriteHosts makes containerd, whose directory of registries is dir, ask other
// nodes, at addresses such as 10.0.0.2:5443, in this order, before a registry. containerd reads
// it anew for each pull. The settings of an operator for a registry, or for all,
// stay as they are: then the nodes are not asked for its images. Without
// addresses the file is removed. It reports whether the nodes will be asked.
func WriteHosts(dir string, addresses []string, id Identity) (bool, error) {
	path := filepath.Join(dir, defaultHosts)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && !bytes.HasPrefix(old, []byte(ours)) {
		return false, nil
	}
	if len(addresses) == 0 {
		return false, durable.Remove(path)
	}
	_, err = durable.WriteFileIfChanged(path, hosts(addresses, id), 0o644)
	return err == nil, err
}

func hosts(addresses []string, id Identity) []byte {
	var b strings.Builder
	b.WriteString(ours)
	for _, a := range addresses {
		fmt.Fprintf(&b, "\n[host.%s]\n", strconv.Quote("https://"+a))
		b.WriteString("  capabilities = [\"pull\", \"resolve\"]\n")
		fmt.Fprintf(&b, "  ca = %s\n", strconv.Quote(id.CAFile))
		fmt.Fprintf(&b, "  client = [[%s, %s]]\n", strconv.Quote(id.CertFile), strconv.Quote(id.KeyFile))
		// A node that is off must not hold up a pull.
		b.WriteString("  dial_timeout = \"2s\"\n")
	}
	return []byte(b.String())
}
