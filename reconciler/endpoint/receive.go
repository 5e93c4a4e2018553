package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/bothy-os/bothy/reconciler/acceptance"
)

// maxCommands bounds the part of a push before its pack, in bytes.
const maxCommands = 64 << 10

// receivePack takes a push.
func (e *Endpoint) receivePack(w http.ResponseWriter, r *http.Request, who caller) {
	if !isRepository(r) {
		http.NotFound(w, r)
		return
	}
	in, err := body(w, r, e.cfg.MaxPush)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	buffered := bufio.NewReader(in)
	// Before it sends much, git asks with an empty request whether it may.
	if head, _ := buffered.Peek(5); string(head) == "0000" {
		answer(w, receiveService, "result")
		return
	}
	request, err := readCommands(buffered)
	if err != nil {
		http.Error(w, "this is not a push: "+err.Error(), http.StatusBadRequest)
		return
	}
	if !enter(r.Context(), e.pushing) {
		return
	}
	defer leave(e.pushing)

	// The answer may begin while the rest of the pack is still coming in.
	_ = http.NewResponseController(w).EnableFullDuplex()
	answer(w, receiveService, "result")
	out := newStream(w, request.Capabilities.Supports(capability.Sideband64k))
	stop := out.keepAlive()
	verdict := e.take(r.Context(), &push{request: request, in: in, out: out, who: who})
	in.drain()
	stop()
	if err := verdict.finish(out, request); err != nil {
		e.log.Debug("endpoint connection", "problem", err.Error())
	}
}

// readCommands reads the part of a push before its pack, which is left in the
// request. Push options are read and forgotten.
func readCommands(in io.Reader) (*packp.ReferenceUpdateRequest, error) {
	head := newLimited(in, maxCommands)
	request := packp.NewReferenceUpdateRequest()
	if err := request.Decode(head); err != nil {
		return nil, err
	}
	if request.Capabilities.Supports(capability.PushOptions) {
		options := pktline.NewScanner(head)
		for options.Scan() && len(options.Bytes()) > 0 {
			continue
		}
		if err := options.Err(); err != nil {
			return nil, fmt.Errorf("push options: %w", err)
		}
	}
	request.Packfile = io.NopCloser(in)
	return request, nil
}

// The words for what becomes of a push.
const (
	verdictAccepted = "accepted"
	verdictRefused  = "refused"
	verdictFailed   = "failed"
)

// verdict is what became of a push.
type verdict struct {
	word    string // one of the above
	rule    string // one line after the reference in git's output
	problem string
	remedy  string
	unpack  string // why the pack could not be read, if that was it
}

func refuse(rule, problem, remedy string) verdict {
	return verdict{word: verdictRefused, rule: rule, problem: problem, remedy: remedy}
}

// push is one push under way.
type push struct {
	request *packp.ReferenceUpdateRequest
	in      *limitedReader // what the request's pack is read from
	out     *stream
	who     caller
}

// take judges a push and keeps account of it.
func (e *Endpoint) take(ctx context.Context, p *push) verdict {
	began, command, who := time.Now(), p.request.Commands[0], p.who
	v := e.judge(ctx, p)

	e.log.Info("push", "verdict", v.word, "who", who.name, "from", who.from, "ref", command.Name.String(),
		"commit", command.New.String(), "rule", v.rule, "problem", v.problem, "took", time.Since(began).Round(time.Millisecond).String())
	e.update(func(s *Status) {
		s.LastPush = &PushStatus{At: began, Who: who.name, From: who.from, Commit: command.New.String(), Verdict: v.word, Problem: v.problem}
	})
	return v
}

func (e *Endpoint) judge(ctx context.Context, p *push) verdict {
	branch, head := e.cfg.Acceptor.Head()
	if v, ok := permitted(p.request.Commands, branch, head); !ok {
		return v
	}
	tip := p.request.Commands[0].New.String()
	pack, err := packOf(p.request.Packfile)
	if err == nil {
		p.out.say("bothy judges commit %.12s …", tip)
		err = e.cfg.Acceptor.Push(ctx, tip, pack)
	}
	if over := p.in.exceeded(); over != nil && err != nil {
		err = over // whatever the reader of the pack made of it
	}
	var refusal *acceptance.Refusal
	switch {
	case err == nil && !e.isHead(tip):
		return refuse("not newer", "the site runs a commit already that contains this one", "fetch, and push what comes after it")
	case err == nil:
		p.out.say("accepted: this is now the cluster")
		return verdict{word: verdictAccepted}
	case errors.As(err, &refusal):
		return refuse("refused by rule: "+refusal.Rule, refusal.Problem, refusal.Remedy)
	}
	return verdict{word: verdictFailed, rule: "not taken", problem: err.Error(), unpack: oneLine(err.Error())}
}

// isHead reports whether a commit is the accepted one: an ancestor of it breaks
// no rule, and changes nothing.
func (e *Endpoint) isHead(commit string) bool {
	_, head := e.cfg.Acceptor.Head()
	return head == commit
}

// permitted checks what is wanted of the references, before any object is read.
func permitted(commands []*packp.Command, branch, head string) (verdict, bool) {
	if len(commands) > 1 {
		return refuse("only one reference", fmt.Sprintf("this push changes %d references at once", len(commands)),
			fmt.Sprintf("push one branch: git push URL HEAD:%s", branch)), false
	}
	command := commands[0]
	want := plumbing.NewBranchReferenceName(branch)
	old := command.Old.String()
	if command.Old.IsZero() {
		old = ""
	}
	switch {
	case command.Name != want:
		return refuse("only "+want.String(), fmt.Sprintf("this site follows branch %s", branch),
			fmt.Sprintf("push to it: git push URL HEAD:%s", branch)), false
	case command.New.IsZero():
		return refuse("no deletion", "the branch of a site cannot be deleted", ""), false
	case old != head:
		return refuse("fetch first", "the branch moved since you last looked", "fetch, rebase or merge, and push again"), false
	}
	return verdict{}, true
}

// packOf returns the pack, or nil if nothing follows the commands: git sends
// none when it believes the server to have every object.
func packOf(in io.Reader) (io.Reader, error) {
	first := make([]byte, 4)
	n, err := io.ReadFull(in, first)
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil //nolint:nilnil // no pack is an answer
	case err != nil:
		return nil, fmt.Errorf("read the pack: %w", err)
	}
	return io.MultiReader(bytes.NewReader(first[:n]), in), nil
}

// finish tells git what became of the push: lines for the reader, then the
// status of each reference.
func (v verdict) finish(out *stream, request *packp.ReferenceUpdateRequest) error {
	if v.word != verdictAccepted {
		out.say("%s", v.rule)
		if v.problem != "" {
			out.say("  problem: %s", v.problem)
		}
		if v.remedy != "" {
			out.say("  remedy:  %s", v.remedy)
		}
	}
	if request.Capabilities.Supports(capability.ReportStatus) {
		var encoded bytes.Buffer
		if err := v.report(request.Commands).Encode(&encoded); err != nil {
			return err
		}
		if _, err := out.Write(encoded.Bytes()); err != nil {
			return err
		}
	}
	return out.end()
}

func (v verdict) report(commands []*packp.Command) *packp.ReportStatus {
	status := packp.NewReportStatus()
	status.UnpackStatus = "ok"
	if v.unpack != "" {
		status.UnpackStatus = v.unpack
	}
	for _, c := range commands {
		text := "ok"
		if v.word != verdictAccepted {
			text = oneLine(v.rule)
		}
		status.CommandStatuses = append(status.CommandStatuses, &packp.CommandStatus{ReferenceName: c.Name, Status: text})
	}
	return status
}

func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text[:min(len(text), 500)])
}
