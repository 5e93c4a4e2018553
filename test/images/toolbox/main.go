// Command toolbox is what tests need inside pods, as one static program for an
// image without a shell: servers and clients for the network, a CPU burner,
// files, names, and a long-lived connection that notices gaps.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// errUsage asks for the usage text instead of an error message.
var errUsage = errors.New("usage")

type command struct {
	name, args, help string
	run              func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"serve", "[-http :8080] [-tcp :8081] [-udp :8082] [-stream :8083]", "answer with this pod's identity over HTTP, and echo with it over TCP and UDP", serve},
		{"get", "[-timeout 5s] [-n 1] [-interval 0s] URL", "print the answers of a web server", get},
		{"dial", "[-timeout 5s] [-send TEXT] tcp|udp HOST:PORT", "connect, send a line, print the answer", dial},
		{"resolve", "[-timeout 5s] [-server HOST:PORT] NAME", "print the addresses of a name, one per line", resolve},
		{"stream", "[-interval 100ms] [-duration 0] HOST:PORT", "hold one connection to `serve -stream`, print gaps, duplicates and resets", stream},
		{"flood", "HOST:PORT", "send datagrams as fast as possible, and say how many", flood},
		{"hear", "[HOST]:PORT", "say who sends datagrams", hear},
		{"burn", "[-cores 1] [-duration 0]", "use CPU time until stopped", burn},
		{"write", "[-sync] FILE TEXT...", "write a file", write},
		{"fill", "[-http :8080] FILE", "take all the room there is for a file, keep it, and say over HTTP how much that is", fill},
		{"cat", "FILE...", "print files", cat},
		{"ledger", "FILE NAMESPACE/CONFIGMAP", "count in a file and in the API, and say over HTTP what is acknowledged", ledger},
		{"sleep", "[DURATION]", "wait, for ever by default", sleep},
		{"env", "", "print the environment, user and host name", env},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage())
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "toolbox:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return errUsage
	}
	return all[i].run(ctx, args[1:])
}

func usage() string {
	var b strings.Builder
	b.WriteString("usage: toolbox COMMAND ARGUMENTS\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-8s %s\n           %s\n", c.name, c.args, c.help)
	}
	return b.String()
}
