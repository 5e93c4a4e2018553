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

// server says which server is started where.
type server struct {
	ns       *cluster.Namespace
	cgroup   string // if it is set
	test, id string
	shift    int32 // added to the port
	ipv6     bool
}

// serve starts a server that lives as long as the namespace is open, and returns its
// process.
func (n netload) serve(s server, closers *[]func() error) (int, error) {
	l := loads[s.test]
	args := []string{"-c", n.cpu, "-n", nice}
	if s.ipv6 {
		args = append(args, "-6")
	}
	cmd := exec.Command(n.path, append(args, "serve", l.serve, strconv.Itoa(int(l.port+s.shift)), s.id)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := startIn(s.ns, s.cgroup, cmd); err != nil {
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

// startIn starts a process in a namespace, and in a cgroup2 directory if it is set.
func startIn(ns *cluster.Namespace, cgroup string, cmd *exec.Cmd) error {
	if cgroup == "" {
		return ns.Start(cmd)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return ns.Start(cmd)
}

// startServers starts what a side needs.
func (n netload) startServers(s *side) (err error) {
	s.servers, s.servers6 = map[string]int{}, map[string]int{}
	for test := range loads {
		one := server{ns: s.pods[serverPod], cgroup: s.podCgroup, test: test, id: "s", shift: s.shift}
		if s.servers[test], err = n.serve(one, &s.close); err != nil {
			return err
		}
		if s.ips6[serverPod] == "" {
			continue
		}
		one.ipv6 = true
		if s.servers6[test], err = n.serve(one, &s.close); err != nil {
			return err
		}
	}
	if err := n.startFarServers(s); err != nil {
		return err
	}
	if s.pods[otherPod] == nil || s.shift > 0 {
		return nil
	}
	_, err = n.serve(server{ns: s.pods[otherPod], test: "crr", id: "o"}, &s.close)
	return err
}

// startFarServers starts those on the other node, if the side has one.
func (n netload) startFarServers(s *side) (err error) {
	if s.pods[farPod] == nil || s.shift > 0 {
		return nil
	}
	s.farServers = map[string]int{}
	for test := range loads {
		if s.farServers[test], err = n.serve(server{ns: s.pods[farPod], test: test, id: "f"}, &s.close); err != nil {
			return err
		}
	}
	return nil
}

// sample is one measurement. Times are in microseconds.
type sample struct {
	Rate       float64 `json:"rate"` // operations per second
	CPU        float64 `json:"cpu"`  // per operation, of both ends
	P50        float64 `json:"p50"`
	P99        float64 `json:"p99"`
	Operations int64   `json:"operations"`
}

// client runs a test from a namespace, and from a cgroup2 directory if it is set, with source ports of the given
// range.
func (n netload) client(
	ctx context.Context, ns *cluster.Namespace, cgroup, ports, test, address string, port int32, seconds float64, server int,
) (sample, error) {
	cmd := exec.CommandContext(ctx, n.path, "-c", n.cpu, "-n", nice, "-p", ports, test, address, strconv.Itoa(int(port)),
		strconv.FormatFloat(seconds, 'f', 3, 64), strconv.Itoa(server))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := startIn(ns, cgroup, cmd); err != nil {
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
