package settings

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/os/boot/modules"
)

// Modules are modules of the kernel.
type Modules struct {
	// Load loads one with what it needs.
	Load func(names ...string) error
}

// Name is "modules".
func (*Modules) Name() string { return "modules" }

// Apply loads what is new. What is not wanted any longer stays until the machine starts
// again: unloading can bring a kernel down.
func (p *Modules) Apply(_ context.Context, from, to *Settings) error {
	var unknown []string
	var errs []error
	for _, m := range to.Modules {
		if slices.Contains(from.Modules, m) {
			continue
		}
		switch err := p.Load(m); {
		case errors.Is(err, modules.ErrUnknown):
			unknown = append(unknown, m)
		case err != nil:
			errs = append(errs, err)
		}
	}
	if len(unknown) > 0 {
		errs = append(errs, fmt.Errorf("%s: the image has no such module; remove it from modules, or build an image with it (os/image/flavours.yaml)", strings.Join(unknown, ", ")))
	}
	return errors.Join(errs...)
}
