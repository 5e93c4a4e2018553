package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bothy-os/bothy/netdata/cni/wire"
)

// request is a checked request.
type request struct {
	wire.Attachment
	command    string
	netns      string
	pod        Pod
	cniVersion string
	ports      []wire.PortMapping
	valid      []wire.Attachment // GC: what still exists
}

var (
	// As in the CNI specification, with an upper bound that keeps file names legal.
	containerIDPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,200}$`)
	ifNamePattern      = regexp.MustCompile(`^[a-zA-Z0-9_.\-]{1,15}$`)
)

// decode reads a request and checks it. Errors carry the codes of the CNI
// specification.
func decode(r io.Reader) (request, *types.Error) {
	data, err := io.ReadAll(io.LimitReader(r, wire.MaxRequest+1))
	if err != nil {
		return request{}, types.NewError(types.ErrIOFailure, "read request", err.Error())
	}
	if len(data) > wire.MaxRequest {
		return request{}, types.NewError(types.ErrDecodingFailure, "request is too large", fmt.Sprintf("limit %d bytes", wire.MaxRequest))
	}
	var in wire.Request
	if err := json.Unmarshal(data, &in); err != nil {
		return request{}, types.NewError(types.ErrDecodingFailure, "request is not valid JSON", err.Error())
	}
	var cfg wire.PluginConfig
	if err := json.Unmarshal(in.Config, &cfg); err != nil {
		return request{}, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	req := request{
		Attachment: wire.Attachment{ContainerID: in.ContainerID, IfName: in.IfName},
		command:    in.Command,
		netns:      in.Netns,
		pod:        podOf(in.Args),
		cniVersion: cfg.CNIVersion,
		ports:      cfg.RuntimeConfig.PortMappings,
	}
	if req.cniVersion == "" {
		req.cniVersion = "0.1.0" // what the specification says of a missing version
	}
	for _, a := range cfg.ValidAttachments {
		req.valid = append(req.valid, wire.Attachment{ContainerID: a.ContainerID, IfName: a.IfName})
	}
	return req, req.check()
}

func (r request) check() *types.Error {
	switch r.command {
	case wire.GC, wire.Status:
		return nil
	case wire.Add, wire.Check, wire.Del:
	default:
		return types.NewError(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND", fmt.Sprintf("%q", r.command))
	}
	if !containerIDPattern.MatchString(r.ContainerID) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is missing or malformed", fmt.Sprintf("%q", r.ContainerID))
	}
	if !ifNamePattern.MatchString(r.IfName) || r.IfName == "." || r.IfName == ".." || r.IfName == "lo" {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME is missing or malformed", fmt.Sprintf("%q", r.IfName))
	}
	if r.command != wire.Del && r.netns == "" {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_NETNS is missing", "")
	}
	return nil
}

// podOf finds the pod in CNI_ARGS ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c;…").
func podOf(args string) Pod {
	var p Pod
	for _, kv := range strings.Split(args, ";") {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case "K8S_POD_NAMESPACE":
			p.Namespace = v
		case "K8S_POD_NAME":
			p.Name = v
		case "K8S_POD_UID":
			p.UID = v
		}
	}
	if p.Namespace == "" || p.Name == "" {
		return Pod{}
	}
	return p
}
