package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot"
)

// errNone says that there is no boot configuration in a place.
var errNone = errors.New("no boot configuration")

// found is a boot configuration, and where it was.
type found struct {
	config *v1alpha1.BootConfig
	from   string
}

// awaitConfig returns the boot configuration: the one that is kept or, the first time, the
// one that can be found. Until there is one it waits for somebody to plug it in.
func (k *keeper) awaitConfig(ctx context.Context) (*v1alpha1.BootConfig, error) {
	data, err := os.ReadFile(boot.BootConfigFile)
	if err == nil {
		return v1alpha1.DecodeBootConfig(boot.BootConfigFile, data)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the boot configuration: %w", err)
	}
	for {
		f, err := k.search()
		if err == nil {
			k.log.Info("found a boot configuration", "from", f.from, "repository", f.config.Repository.URL)
			return f.config, keepConfig(f.config)
		}
		k.screen.set(func(s *state) {
			s.doing = "waiting for a boot configuration"
			s.problem = err.Error()
			s.next = "plug in a volume labelled BOTHY-SEED with " + boot.SeedConfig + " on it; `bothy os seed` makes one"
		})
		if err := k.awaitChange(ctx); err != nil {
			return nil, err
		}
	}
}

// search looks in every place, those first that somebody has to hold in his hands.
func (k *keeper) search() (*found, error) {
	var errs []error
	for _, place := range []func() (*found, error){searchSeed, searchFirmwareConfig, searchSMBIOS} {
		f, err := place()
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errNone) {
			k.log.Warn("a boot configuration is not used", "err", err)
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nil, errNone
}

// settle is how long devices get to finish what they do: a stick announces its disk
// before its partitions.
const settle = 500 * time.Millisecond

// awaitChange returns some time after something was plugged in.
func (k *keeper) awaitChange(ctx context.Context) error {
	select {
	case <-k.changed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
	}
	return nil
}

// decode checks a boot configuration in full: nothing of one with a mistake is used.
func decode(from string, data []byte) (*found, error) {
	config, err := v1alpha1.DecodeBootConfig(from, data)
	if err != nil {
		return nil, err
	}
	return &found{config, from}, nil
}

func keepConfig(config *v1alpha1.BootConfig) error {
	data, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(boot.BootConfigFile, data, 0o600); err != nil {
		return fmt.Errorf("keep the boot configuration: %w", err)
	}
	return nil
}
