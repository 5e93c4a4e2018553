package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// streamCounter is the server's half of a stream: it returns each number it
// gets, with its identity.
func streamCounter(_ context.Context, conn net.Conn) {
	in := bufio.NewScanner(conn)
	for in.Scan() {
		if _, err := fmt.Fprintf(conn, "%s %s\n", in.Text(), identity()); err != nil {
			return
		}
	}
}

// stream keeps one connection busy with numbered messages. It ends with a
// summary, and with an error if the connection broke or a reply was missing:
// the proof that an established connection lived through a restart.
func stream(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("stream", flag.ContinueOnError)
	interval := fs.Duration("interval", 100*time.Millisecond, "time between messages")
	duration := fs.Duration("duration", 0, "end after this time, 0 for never")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return errUsage
	}
	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", fs.Arg(0))
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Printf("connected to %s from %s\n", conn.RemoteAddr(), conn.LocalAddr())
	return exchange(ctx, conn, *interval)
}

func exchange(ctx context.Context, conn net.Conn, interval time.Duration) error {
	received := make(chan received)
	go receive(ctx, conn, received)

	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	t := tally{last: time.Now()}
	for {
		select {
		case <-ctx.Done():
			fmt.Println(t.summary())
			return t.verdict()
		case <-ticker.C:
			t.sent++
			if _, err := fmt.Fprintln(conn, t.sent); err != nil {
				fmt.Println(t.summary())
				return fmt.Errorf("connection lost after %d messages: %w", t.received, err)
			}
		case r := <-received:
			if r.err != nil {
				fmt.Println(t.summary())
				return fmt.Errorf("connection lost after %d messages: %w", t.received, r.err)
			}
			t.count(r.number, 10*interval)
		}
	}
}

type received struct {
	number int
	err    error
}

func receive(ctx context.Context, conn net.Conn, out chan<- received) {
	send := func(r received) bool {
		select {
		case out <- r:
			return r.err == nil
		case <-ctx.Done():
			return false
		}
	}
	in := bufio.NewScanner(conn)
	in.Split(bufio.ScanLines)
	for in.Scan() {
		var n int
		var who string
		_, err := fmt.Sscan(in.Text(), &n, &who)
		if !send(received{n, err}) {
			return
		}
	}
	err := in.Err()
	if err == nil {
		err = io.EOF
	}
	send(received{0, err})
}

// tally counts what came back.
type tally struct {
	sent, received, next int
	gaps, duplicates     int
	last                 time.Time
	longest              time.Duration
}

// count takes in one reply; a silence longer than slow is printed.
func (t *tally) count(n int, slow time.Duration) {
	now := time.Now()
	silence := now.Sub(t.last)
	t.last = now
	t.longest = max(t.longest, silence)
	if silence > slow {
		fmt.Printf("silent for %v before message %d\n", silence.Round(time.Millisecond), n)
	}
	t.received++
	switch {
	case n > t.next+1:
		t.gaps++
		fmt.Println("gap: expected " + strconv.Itoa(t.next+1) + ", got " + strconv.Itoa(n))
	case n <= t.next:
		t.duplicates++
		fmt.Println("duplicate: " + strconv.Itoa(n))
	}
	t.next = max(t.next, n)
}

func (t *tally) summary() string {
	return fmt.Sprintf("sent=%d received=%d gaps=%d duplicates=%d longest_silence=%v", t.sent, t.received, t.gaps, t.duplicates, t.longest.Round(time.Millisecond))
}

// verdict allows one message to be still on its way.
func (t *tally) verdict() error {
	if t.gaps+t.duplicates > 0 || t.sent-t.received > 1 {
		return errors.New("messages were lost or repeated")
	}
	return nil
}
