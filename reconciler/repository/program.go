package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// program runs a command in dir and returns what it printed. The error carries
// the last lines of its error output.
func program(ctx context.Context, dir, name string, args ...string) (string, error) {
	var out bytes.Buffer
	// A passphrase prompt needs the terminal; git must not ask for passwords.
	err := pipe(ctx, dir, os.Stdin, &out, name, args...)
	return out.String(), err
}

// pipe is program with input and output of the caller's.
func pipe(ctx context.Context, dir string, in io.Reader, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(withoutRedirection(os.Environ()), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	var problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, &problems
	if err := cmd.Run(); err != nil {
		if text := lastLines(problems.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("%s %s: %w", name, firstArg(args), err)
	}
	return nil
}

// withoutRedirection drops the variables by which a surrounding git command,
// such as a hook, would redirect ours to its own repository.
func withoutRedirection(env []string) []string {
	redirecting := map[string]bool{"GIT_DIR": true, "GIT_WORK_TREE": true, "GIT_INDEX_FILE": true, "GIT_OBJECT_DIRECTORY": true, "GIT_COMMON_DIR": true}
	var out []string
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); !redirecting[name] {
			out = append(out, kv)
		}
	}
	return out
}

func firstArg(args []string) string {
	for i := 0; i < len(args); i++ {
		if args[i] == "-c" || args[i] == "-C" {
			i++
			continue
		}
		return args[i]
	}
	return ""
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, " / ")
}

// need says how to get a program that is missing.
func need(name, install string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s is not installed; run: apt install %s", name, install)
	}
	return nil
}

// needGit checks for a git that can sign with SSH keys.
func needGit(ctx context.Context) error {
	if err := need("git", "git"); err != nil {
		return err
	}
	text, err := program(ctx, "", "git", "version")
	if err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(strings.TrimSpace(text), "git version "), "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("understand %q: %w", strings.TrimSpace(text), err)
	}
	if major < 2 || major == 2 && minor < 34 {
		return fmt.Errorf("%s is too old: signing with SSH keys came with git 2.34; install a newer git", strings.TrimSpace(text))
	}
	return nil
}

// needSSHKeygen checks for an ssh-keygen that can sign.
func needSSHKeygen(ctx context.Context) error {
	if err := need("ssh-keygen", "openssh-client"); err != nil {
		return err
	}
	// Without arguments for -Y, a version that knows it says which are missing.
	_, err := program(ctx, "", "ssh-keygen", "-Y", "check-novalidate")
	if err == nil {
		return nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && !strings.Contains(err.Error(), "unknown option") && !strings.Contains(err.Error(), "invalid option") && !strings.Contains(err.Error(), "illegal option") {
		return nil
	}
	return fmt.Errorf("ssh-keygen cannot sign: OpenSSH 8.2 or newer is needed (%w)", err)
}
