package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

const (
	// dialPatience covers an agent that restarts.
	dialPatience = 3 * time.Second
	dialRetry    = 50 * time.Millisecond
	// requestTimeout is below the runtime's own.
	requestTimeout = 30 * time.Second
)

// Main is the plugin's main function.
func Main() {
	p := plugin{patience: dialPatience}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add:    p.verb(wire.Add),
		Del:    p.verb(wire.Del),
		Check:  p.verb(wire.Check),
		GC:     p.verb(wire.GC),
		Status: p.verb(wire.Status),
	}, version.All, "bothy-cni: connects pods to the network of a bothy node")
}

type plugin struct {
	patience time.Duration
}

func (p plugin) verb(command string) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		out, err := p.run(command, args)
		if err != nil {
			return err
		}
		if len(out) > 0 {
			if _, err := os.Stdout.Write(append(out, '\n')); err != nil {
				return types.NewError(types.ErrIOFailure, "write result", err.Error())
			}
		}
		return nil
	}
}

func (p plugin) run(command string, args *skel.CmdArgs) ([]byte, error) {
	var cfg wire.PluginConfig
	if err := json.Unmarshal(args.StdinData, &cfg); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if cfg.Socket == "" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, `network configuration has no "socket"`, "the agent writes it; do not edit the file")
	}
	resp, err := p.ask(cfg.Socket, wire.Request{
		Command:     command,
		ContainerID: args.ContainerID,
		Netns:       args.Netns,
		IfName:      args.IfName,
		Args:        args.Args,
		Config:      args.StdinData,
	})
	if err != nil {
		return nil, offline(command, cfg, args, err)
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	return resp.Result, nil
}

// offline says what the absence of the agent means for a verb.
func offline(command string, cfg wire.PluginConfig, args *skel.CmdArgs, cause error) error {
	switch command {
	case wire.Del:
		if err := note(cfg.Deleted, wire.Attachment{ContainerID: args.ContainerID, IfName: args.IfName}); err != nil {
			return types.NewError(types.ErrTryAgainLater, "the agent does not answer and the deletion could not be noted",
				errors.Join(cause, err).Error())
		}
		return nil
	case wire.GC:
		return nil // the agent looks for leftovers when it starts
	case wire.Status:
		return types.NewError(types.ErrPluginNotAvailable, "the agent does not answer", cause.Error())
	default:
		return types.NewError(types.ErrTryAgainLater, "the agent does not answer", cause.Error())
	}
}

// note leaves a file named after the attachment. The directory is on a tmpfs and
// the file is empty: nothing is written to disk.
func note(dir string, a wire.Attachment) error {
	if dir == "" {
		return errors.New(`network configuration has no "deleted" directory`)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, NoteName(a)), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// NoteName is the name of the file that notes a deletion. Both parts are checked by
// the CNI library to contain no slash; the interface name has no '@' either.
func NoteName(a wire.Attachment) string { return a.IfName + "@" + a.ContainerID }

// ParseNote is the inverse of NoteName.
func ParseNote(name string) (wire.Attachment, bool) {
	ifName, id, ok := strings.Cut(name, "@")
	return wire.Attachment{ContainerID: id, IfName: ifName}, ok && ifName != "" && id != ""
}

func (p plugin) ask(socket string, req wire.Request) (*wire.Response, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	client := &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return p.dial(ctx, socket)
			},
		},
	}
	httpResp, err := client.Post("http://agent"+wire.Path, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w", socket, err)
	}
	defer httpResp.Body.Close()
	var resp wire.Response
	if err := json.NewDecoder(http.MaxBytesReader(nil, httpResp.Body, wire.MaxRequest)).Decode(&resp); err != nil {
		return nil, fmt.Errorf("read the agent's answer (HTTP %d): %w", httpResp.StatusCode, err)
	}
	return &resp, nil
}

func (p plugin) dial(ctx context.Context, socket string) (net.Conn, error) {
	deadline := time.Now().Add(p.patience)
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil || time.Now().After(deadline) {
			return conn, err
		}
		timer := time.NewTimer(dialRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}
