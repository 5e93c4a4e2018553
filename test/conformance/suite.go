package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// suite is the upstream suite, pointed at a node.
type suite struct {
	dirs       dirs
	kubeconfig string
	version    string
	nodes      int
	work       string
	// temp is where the suite and the commands it runs put temporary files, many of which they forget. Its path is
	// short, for there are sockets among them.
	temp string
}

func newSuite(ctx context.Context, d dirs, node *cluster.Node) (*suite, error) {
	k, err := node.NewKubectl(ctx)
	if err != nil {
		return nil, err
	}
	version, err := node.Bothy(ctx, nil, "version")
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(filepath.Dir(node.State), "suite-")
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp("", "bothy-suite-")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	first, _, _ := strings.Cut(version.Stdout, "\n")
	return &suite{dirs: d, kubeconfig: k.Kubeconfig, version: strings.TrimSpace(first), nodes: 1 + node.Workers, work: work, temp: temp}, nil
}

// close removes what the suite has left in its directories.
func (s *suite) close() error { return errors.Join(os.RemoveAll(s.work), os.RemoveAll(s.temp)) }

// run runs a batch and saves its results. What an interruption leaves
// unfinished has no result.
func (s *suite) run(ctx context.Context, b batch, kept *results) error {
	report := filepath.Join(s.work, "report.json")
	if err := os.Remove(report); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, s.dirs.ginkgo, s.args(b)...)
	cmd.Dir = s.work
	cmd.Env = append(os.Environ(), "TMPDIR="+s.temp)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Interrupted, the suite removes what it made and reports what it has done;
	// each of its processes has to hear of it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Minute
	runErr := cmd.Run()

	reports, err := readReport(report)
	if err != nil {
		return errors.Join(fmt.Errorf("run the suite: %w", err), runErr)
	}
	for _, r := range reports {
		if err := s.keep(kept, r); err != nil {
			return err
		}
	}
	if err := kept.save(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) { // a failed spec is an exit code
		return fmt.Errorf("run the suite: %w", runErr)
	}
	return context.Cause(ctx)
}

// leaveOut counts specs as skipped that need what is not there, and returns the others.
func (s *suite) leaveOut(specs []spec, kept *results) ([]spec, error) {
	reasons, err := loadReasons(reasonsFile)
	if err != nil {
		return nil, err
	}
	var rest []spec
	for _, spec := range specs {
		lacking := hopeless(reasons, spec.Text)
		if lacking == "" {
			rest = append(rest, spec)
			continue
		}
		kept.Specs[spec.Text] = result{State: skipped, At: time.Now(), Bothy: s.version, Nodes: s.nodes, Message: "there is no " + lacking}
	}
	return rest, kept.save()
}

func (s *suite) args(b batch) []string {
	args := []string{
		"run", fmt.Sprintf("--procs=%d", b.parallel), "--json-report=report.json", "--output-dir=" + s.work,
		"--no-color", "--succinct", "--silence-skips", "--timeout=24h",
	}
	for _, spec := range b.specs {
		args = append(args, "--focus="+" "+regexp.QuoteMeta(spec.Text)+"$")
	}
	return append(args, s.dirs.suite, "--",
		"--kubeconfig="+s.kubeconfig, "--kubectl-path="+filepath.Join(s.dirs.Bin, "kubectl"),
		"--provider=skeleton", fmt.Sprintf("--num-nodes=%d", s.nodes), "--disable-log-dump", "--repo-root="+s.work)
}

// keep records a result, and for a failure the suite's log of it.
func (s *suite) keep(kept *results, r specReport) error {
	got, ok := r.result()
	if !ok {
		return nil
	}
	got.Bothy, got.Nodes = s.version, s.nodes
	kept.Specs[r.text()] = got
	if got.State != failed {
		return nil
	}
	if err := os.MkdirAll(s.dirs.failures, 0o755); err != nil {
		return err
	}
	file := filepath.Join(s.dirs.failures, fileName(r.text())+".log")
	text := r.text() + "\n" + got.Where + "\n" + got.Message + "\n\n" + r.CapturedGinkgoWriterOutput + r.CapturedStdOutErr
	return os.WriteFile(file, []byte(text), 0o644)
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// fileName is short enough for any file system.
func fileName(text string) string {
	name := strings.Trim(notInNames.ReplaceAllString(text, "-"), "-")
	return name[:min(len(name), 180)]
}

func now() string { return time.Now().Format(time.TimeOnly) }
