package settings

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Hostname is what the machine calls itself.
type Hostname struct {
	// Default is its name where nothing else is set.
	Default string
	// Set gives it a name; nil is sethostname(2).
	Set func(string) error
}

// Name is "hostname".
func (*Hostname) Name() string { return "hostname" }

// Apply sets it.
func (p *Hostname) Apply(_ context.Context, _, to *Settings) error {
	name := to.Hostname
	if name == "" {
		name = p.Default
	}
	set := p.Set
	if set == nil {
		set = func(name string) error { return unix.Sethostname([]byte(name)) }
	}
	if err := set(name); err != nil {
		return fmt.Errorf("set the host name %s: %w", name, err)
	}
	return nil
}
