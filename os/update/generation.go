package update

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bothy-os/bothy/os/verity"
)

// Generation is an operating system on this machine.
type Generation struct {
	// Digest is that of the OCI artifact that it came in; "" for the one that was installed.
	Digest string `json:"digest,omitempty"`
	// Version is what it calls itself.
	Version string `json:"version,omitempty"`
	// CommandLine are the arguments in its boot file, by which it is known when it runs: the
	// root hash is among them.
	CommandLine []string `json:"commandLine"`
	// BootFile is the sha256 of its boot file; "" if not known.
	BootFile string `json:"bootFile,omitempty"`
}

// rootArg begins the argument with the root hash.
const (
	rootArg   = "bothy.root="
	blocksArg = "bothy.blocks="
)

// IsOwn says whether a kernel's command line is that of a boot file of bothy's: whether this
// machine runs nothing else.
func IsOwn(commandLine string) bool {
	return slices.ContainsFunc(strings.Fields(commandLine), func(a string) bool { return strings.HasPrefix(a, rootArg) })
}

// matches says how many arguments of a running system are the generation's; -1 if not all of
// the generation's are there. Others may have been added to them.
func (g *Generation) matches(running []string) int {
	if g == nil || len(g.CommandLine) == 0 {
		return -1
	}
	for _, a := range g.CommandLine {
		if !slices.Contains(running, a) {
			return -1
		}
	}
	return len(g.CommandLine)
}

// root returns what the command line says about the root file system.
func (g *Generation) root() (hash verity.Hash, blocks uint64, err error) {
	for _, a := range g.CommandLine {
		if text, ok := strings.CutPrefix(a, rootArg); ok {
			hash, err = verity.ParseHash(text)
		} else if text, ok := strings.CutPrefix(a, blocksArg); ok {
			blocks, err = strconv.ParseUint(text, 10, 40)
		}
		if err != nil {
			return hash, 0, fmt.Errorf("argument %s of the boot file: %w", a, err)
		}
	}
	if hash == (verity.Hash{}) || blocks == 0 {
		return hash, 0, fmt.Errorf("the boot file does not say which root file system it belongs to: it has no %s and %s", rootArg, blocksArg)
	}
	return hash, blocks, nil
}
