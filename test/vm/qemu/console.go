package qemu

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"sync"
)

// Console is what a machine has printed on its serial port.
type Console struct {
	file *os.File

	mu     sync.Mutex
	text   []byte
	closed bool
	// more is closed, and replaced, whenever there is more to read.
	more chan struct{}
}

// newConsole keeps the text in a file too, unless the name is empty.
func newConsole(file string) (*Console, error) {
	c := &Console{more: make(chan struct{})}
	if file == "" {
		return c, nil
	}
	var err error
	if c.file, err = os.Create(file); err != nil {
		return nil, fmt.Errorf("keep the console: %w", err)
	}
	return c, nil
}

// Write takes what the machine prints.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p...)
	close(c.more)
	c.more = make(chan struct{})
	if c.file != nil {
		return c.file.Write(p)
	}
	return len(p), nil
}

// String is everything so far.
func (c *Console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Wait returns once the machine has printed what matches, and the match.
func (c *Console) Wait(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	for {
		c.mu.Lock()
		match, closed, more := pattern.Find(c.text), c.closed, c.more
		c.mu.Unlock()
		if match != nil {
			return string(match), nil
		}
		if closed {
			return "", fmt.Errorf("the machine is off and has not printed %q", pattern)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the machine to print %q: %w", pattern, context.Cause(ctx))
		}
	}
}

func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	close(c.more)
	c.more = make(chan struct{})
	if c.file != nil {
		c.file.Close()
	}
}
