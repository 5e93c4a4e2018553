package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/bothy-os/bothy/test/cluster"
)

// nice keeps other processes from cutting a measurement in pieces.
const nice = "-15"

// netload is the program in netload/.
type netload struct {
	path string
	cpu  string
}

// loads are the servers of the tests.
var loads = map[string]struct {
	serve string
	port  int32
	proto string
}{
	"rr":     {"echo", 7000, "TCP"},
	"stream": {"sink", 7001, "TCP"},
	"udp":    {"datagram", 7002, "UDP"},
	"crr":    {"once", 7003, "TCP"},
}

// serve starts a server that lives as long as the namespace is open, and returns its
// process.
func (n netload) serve(ns *cluster.Namespace, test, id string, closers *[]func() error) (int, error) {
	l := loads[test]
	cmd := exec.Command(n.path, "-c", n.cpu, "-n", nice, "serve", l.serve, strconv.Itoa(int(l.port)), id)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := ns.Start(cmd); err != nil {
		return 0, err
	}
	*closers = append(*closers, func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, and says so
		return err
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		return 0, fmt.Errorf("netload serve %s: %q, %w", l.serve, line, errors.Join(err, errors.New("it does not listen")))
	}
	return cmd.Process.Pid, nil
}

// startServers starts what a side needs.
func (n netload) startServers(s *side) error {
	s.servers = map[string]int{}
	for test := range loads {
		pid, err := n.serve(s.pods[serverPod], test, "s", &s.close)
		if err != nil {
			return err
		}
		s.servers[test] = pid
	}
	if s.pods[otherPod] == nil {
		return nil
	}
	_, err := n.serve(s.pods[otherPod], "crr", "o", &s.close)
	return err
}

// sample is one measurement. Times are in microseconds.
type sample struct {
	Rate       float64 `json:"rate"` // operations per second
	CPU        float64 `json:"cpu"`  // per operation, of both ends
	P50        float64 `json:"p50"`
	P99        float64 `json:"p99"`
	Operations int64   `json:"operations"`
}

// client runs a test from a namespace, and from a cgroup2 directory if it is set.
func (n netload) client(ctx context.Context, ns *cluster.Namespace, cgroup, test, address string, port int32, seconds float64, server int) (sample, error) {
	cmd := exec.CommandContext(ctx, n.path, "-c", n.cpu, "-n", nice, test, address, strconv.Itoa(int(port)),
		strconv.FormatFloat(seconds, 'f', 3, 64), strconv.Itoa(server))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return sample{}, err
		}
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := ns.Start(cmd); err != nil {
		return sample{}, err
	}
	if err := cmd.Wait(); err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	var raw struct {
		Ops, CPUNs   int64
		Seconds      float64
		P50Ns, P99Ns float64
	}
	if err := json.Unmarshal([]byte(out.String()), &raw); err != nil {
		return sample{}, fmt.Errorf("decode %q: %w", out.String(), err)
	}
	if raw.Ops == 0 {
		return sample{}, errors.New("not one operation was finished")
	}
	return sample{
		Rate: float64(raw.Ops) / raw.Seconds, CPU: float64(raw.CPUNs) / float64(raw.Ops) / 1e3,
		P50: raw.P50Ns / 1e3, P99: raw.P99Ns / 1e3, Operations: raw.Ops,
	}, nil
}
