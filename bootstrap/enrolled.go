package bootstrap

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/bothy-os/bothy/bootstrap/join"
	"github.com/bothy-os/bothy/bootstrap/roster"
)

// enrolledOnly asks before others whether a worker is still enrolled. Certificates cannot be taken back,
// and live for a day; this makes them worthless with the commit that removes their machine, or
// changes its identity.
func (cp *ControlPlane) enrolledOnly(next authorizer.Authorizer) authorizer.Authorizer {
	return &enrolled{Authorizer: next, self: cp.cfg.NodeName, roster: roster.NewReader(cp.paths.Roster())}
}

type enrolled struct {
	authorizer.Authorizer
	// self is this node, whose certificates come and go with the cluster's keys.
	self   string
	roster *roster.Reader
}

// Authorize implements authorizer.Authorizer.
func (e *enrolled) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := a.GetUser(); u != nil {
		if machine := machineOf(u); machine != "" {
			if reason := e.objection(machine, u.GetUID()); reason != "" {
				return authorizer.DecisionDeny, reason, nil
			}
		}
	}
	return e.Authorizer.Authorize(ctx, a)
}

// objection says why a machine may do nothing, "" if it may.
func (e *enrolled) objection(machine, identity string) string {
	if machine == e.self && identity == "" {
		return "" // its certificate is this node's own
	}
	members, err := e.roster.Read()
	if err != nil {
		return "nobody knows which machines are enrolled: " + err.Error()
	}
	m, found := members.ByName(machine)
	switch {
	case !found || !m.Worker:
		return "machine " + machine + " is not enrolled any more: its Machine object is not in the repository"
	case m.Identity != identity:
		return "machine " + machine + " has another identity now: the certificate was given to an earlier one"
	}
	return ""
}

// machineOf is the machine that a user is a part of, "" if it is of none.
func machineOf(u user.Info) string {
	name, groups := u.GetName(), u.GetGroups()
	if slices.Contains(groups, user.NodesGroup) {
		return strings.TrimPrefix(name, "system:node:")
	}
	if slices.Contains(groups, join.Group) {
		return name[strings.LastIndexByte(name, ':')+1:]
	}
	return ""
}
