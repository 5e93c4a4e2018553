package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bothy-os/bothy/agent"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/sandbox"
)

// connect finds the agent of the node on the state directory: inside a node
// its own, outside the one in the sandbox.
func (o *options) connect() (*agent.Client, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("not root: the agent answers only to root; run this command with sudo")
	}
	n, err := o.open()
	if err != nil {
		return nil, err
	}
	if n == nil {
		return agent.NewClient(boot.AgentSocket), nil
	}
	if !n.Running() {
		return nil, fmt.Errorf("node %q is not running: start it with `bothy up --state %s`", n.Name, o.state)
	}
	return agent.NewClient(n.Path(boot.AgentSocket)), nil
}

// open returns the sandbox of the state directory, or nil where bothy is the
// machine's own agent.
func (o *options) open() (*sandbox.Node, error) {
	n, err := sandbox.Open(o.state)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := os.Stat(boot.EnvironmentFile); err == nil {
		return nil, nil
	}
	return nil, fmt.Errorf("there is no node in %s: start one with `bothy up`, or say where it is with --state", o.state)
}

// binDir is where the running executable and its helpers are.
func binDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	return filepath.Dir(exe), nil
}

// writeKubeconfig puts the administrator's kubeconfig into the state
// directory and returns its path.
func (o *options) writeKubeconfig(ctx context.Context, c *agent.Client) (string, error) {
	data, err := c.Kubeconfig(ctx)
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(o.state)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kubeconfig")
	return path, os.WriteFile(path, data, 0o600)
}
