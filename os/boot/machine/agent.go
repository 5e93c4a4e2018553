package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/bothy-os/bothy/os/boot"
)

// agentStatus is as much of what the agent says as is shown.
type agentStatus struct {
	Node struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
	} `json:"node"`
	Git struct {
		Source struct {
			URL       string `json:"url"`
			LastError string `json:"lastError"`
			TrustNone bool   `json:"trustNone"`
		} `json:"source"`
		Accepted *struct {
			Commit  string `json:"commit"`
			Subject string `json:"subject"`
			Signer  string `json:"signer"`
		} `json:"accepted"`
		Rejected *struct {
			Commit  string `json:"commit"`
			Problem string `json:"problem"`
			Remedy  string `json:"remedy"`
		} `json:"rejected"`
		Phase   string `json:"phase"`
		Message string `json:"message"`
	} `json:"git"`
	URLs []string `json:"urls"`
	OS   struct {
		Phase   string `json:"phase"`
		Message string `json:"message"`
		Wanted  string `json:"wanted"`
		Read    int64  `json:"read"`
		Update  *struct {
			Current struct {
				Digest string `json:"digest"`
			} `json:"current"`
		} `json:"update"`
	} `json:"os"`
}

// agentRetry is the pause before the agent is asked again, which may be starting.
const agentRetry = 2 * time.Second

// followAgent shows what the agent says for as long as the machine runs.
func (s *screen) followAgent(ctx context.Context) error {
	for {
		err := follow(ctx, boot.AgentSocket, func(st *agentStatus) { s.set(st.show) })
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.set(func(now *state) {
			if now.commit != "" { // it has answered before
				now.doing, now.problem, now.next = "the agent is being started again", err.Error(), "bothy logs says why it ended"
			}
		})
		select {
		case <-time.After(agentRetry):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow reads the agent's status whenever it changes. The protocol is HTTP 1.0, whose
// answers have no structure but their end: a client of it is these few lines.
func follow(ctx context.Context, socket string, visit func(*agentStatus)) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := fmt.Fprint(conn, "GET /v1/status?follow=1 HTTP/1.0\r\nHost: bothy\r\n\r\n"); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	status, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(status, " 200 ") {
		return errors.New("the agent answers " + strings.TrimSpace(status))
	}
	for line := status; strings.TrimSpace(line) != ""; {
		if line, err = in.ReadString('\n'); err != nil {
			return err
		}
	}
	for decoder := json.NewDecoder(in); ; {
		st := &agentStatus{}
		if err := decoder.Decode(st); err != nil {
			return err
		}
		visit(st)
	}
}

// show puts what the agent says into what is on the screen.
func (st *agentStatus) show(s *state) {
	s.problem, s.next = "", ""
	s.doing = st.Git.Phase
	if !st.Node.Ready && st.Node.Reason != "" {
		s.doing += ", node: " + st.Node.Reason
	}
	if st.Git.Message != "" {
		s.doing += ": " + st.Git.Message
	}
	if a := st.Git.Accepted; a != nil {
		s.commit = short(a.Commit) + " " + a.Subject + ", signed by " + a.Signer
		if st.Git.Source.TrustNone {
			s.commit = short(a.Commit) + " " + a.Subject + ", NOT VERIFIED (trust: none)"
		}
	}
	switch r := st.Git.Rejected; {
	case r != nil:
		s.problem, s.next = "commit "+short(r.Commit)+" was refused: "+r.Problem, r.Remedy
	case st.Git.Source.LastError != "":
		s.problem, s.next = "the repository cannot be read: "+st.Git.Source.LastError, "check the way to "+st.Git.Source.URL
	}
	s.urls = strings.Join(st.URLs, " ")
	st.showSystem(s)
}

// showSystem says what becomes of the operating system.
func (st *agentStatus) showSystem(s *state) {
	s.system = ""
	if u := st.OS.Update; u != nil && u.Current.Digest != "" {
		s.system = shortDigest(u.Current.Digest)
	}
	switch wanted := shortDigest(st.OS.Wanted); st.OS.Phase {
	case "fetching":
		s.system += fmt.Sprintf(" fetching %s, %d MiB", wanted, st.OS.Read>>20)
	case "writing":
		s.system += " writing " + wanted
	case "waiting":
		s.system += " about to start " + wanted + ", waiting " + st.OS.Message
	case "restarting":
		s.system += " starting " + wanted
	case "on-trial":
		s.system = wanted + " on trial"
		if st.OS.Message != "" {
			s.system += ": " + st.OS.Message
		}
	case "failed":
		if s.problem == "" {
			s.problem, s.next = "operating system: "+st.OS.Message, "name another image in spec.os.image of the cluster"
		}
	}
	s.system = strings.TrimSpace(s.system)
}

// shortDigest is the beginning of the digest in a reference.
func shortDigest(ref string) string {
	_, hex, ok := strings.Cut(ref, "sha256:")
	if !ok {
		return ref
	}
	return "sha256:" + hex[:min(len(hex), 12)]
}

func short(commit string) string { return commit[:min(len(commit), 12)] }
