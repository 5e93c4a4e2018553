// Command updatelock moves lock.yaml to the newest packages:
//
//	updatelock CACHE LOCK
package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/bothy-os/bothy/internal/debian"
	"github.com/bothy-os/bothy/internal/durable"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: updatelock CACHE LOCK")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "updatelock:", err)
		os.Exit(1)
	}
}

var snapshot = regexp.MustCompile(`(?m)^snapshot: \S+$`)

func run(ctx context.Context, cache, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lock, err := debian.ParseLock(file, text)
	if err != nil {
		return err
	}
	store, err := debian.Open(cache, lock)
	if err != nil {
		return err
	}
	text, changes, err := store.Update(ctx, text)
	if err != nil {
		return err
	}
	for _, c := range changes {
		fmt.Println(c)
	}
	if len(changes) == 0 {
		fmt.Println("nothing is newer")
		return nil
	}
	// The archive of tomorrow has what the suites have today.
	day := time.Now().UTC().AddDate(0, 0, 1).Format("20060102T000000Z")
	return durable.WriteFile(file, snapshot.ReplaceAll(text, []byte("snapshot: "+day)), 0o644)
}
