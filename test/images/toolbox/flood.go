package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"
)

// flood sends datagrams as fast as it can from its first instruction on, and says
// how many: the proof that there was something to hold back.
func flood(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("flood", flag.ContinueOnError)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	conn, err := net.Dial("udp", fs.Arg(0))
	if err != nil {
		return err
	}
	defer conn.Close()
	said := time.Now()
	for sent := 0; ctx.Err() == nil; {
		if _, err := conn.Write([]byte("flood")); err == nil {
			sent++
		}
		if time.Since(said) > time.Second {
			fmt.Printf("sent %d\n", sent)
			said = time.Now()
		}
	}
	return nil
}

// hear counts datagrams, by who sent them, and says so whenever somebody new is heard.
func hear(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("hear", flag.ContinueOnError)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	conn, err := net.ListenPacket("udp", fs.Arg(0))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	fmt.Println("listening")
	heard := map[string]bool{}
	for buf := make([]byte, 100); ; {
		_, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		host, _, err := net.SplitHostPort(from.String())
		if err != nil {
			return err
		}
		if !heard[host] {
			heard[host] = true
			fmt.Printf("heard %s\n", host)
		}
	}
}
