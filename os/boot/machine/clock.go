package machine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"

	"github.com/bothy-os/bothy/internal/durable"
)

const (
	// defaultNTP is asked where nobody says whom to ask.
	defaultNTP = "time.cloudflare.com"
	// tolerance is the error that is corrected slowly; a larger one at once, because
	// certificates and signatures are judged by the clock.
	tolerance = 500 * time.Millisecond
	// askClock and askClockAgain are the pauses after an answer and after none.
	askClock, askClockAgain = 30 * time.Minute, time.Minute
	// keepClock is how often the time is kept on disk, for machines without a clock that
	// runs while they are off.
	keepClock = time.Hour
)

// clockFile keeps the time that the machine has seen, in seconds.
var clockFile = filepath.Join(stateDir, "clock")

// clock is the time of day.
type clock struct {
	log *slog.Logger
	// floor is when the image was built.
	floor time.Time
}

func newClock(log *slog.Logger) *clock {
	c := &clock{log: log}
	if seconds, err := strconv.ParseInt(release()["BUILD_ID"], 10, 64); err == nil {
		c.floor = time.Unix(seconds, 0)
	}
	return c
}

// raise sets a clock that shows a time before what is certain to have passed.
func (c *clock) raise() error {
	least := c.floor
	if data, err := os.ReadFile(clockFile); err == nil {
		if seconds, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && time.Unix(seconds, 0).After(least) {
			least = time.Unix(seconds, 0)
		}
	}
	now := time.Now()
	if !now.Before(least) {
		return nil
	}
	c.log.Warn("the clock was behind what this machine has seen already", "showed", now, "set", least)
	return setClock(least)
}

// keep asks servers for the time, and keeps it. When it is woken it asks at once.
func (c *clock) keep(ctx context.Context, servers func() []string, woken <-chan struct{}) {
	// Whatever comes of the servers: this time has passed.
	if err := c.remember(); err != nil {
		c.log.Warn("the time was not kept", "err", err)
	}
	kept := time.NewTicker(keepClock)
	defer kept.Stop()
	for wait := time.Duration(0); ; {
		select {
		case <-time.After(wait):
			wait = askClock
			if err := c.ask(servers()); err != nil {
				c.log.Warn("nobody says what time it is", "err", err)
				wait = askClockAgain
			}
		case <-woken:
			wait = 0
		case <-kept.C:
			if err := c.remember(); err != nil {
				c.log.Warn("the time was not kept", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// ask takes the answer of the first server that gives one which makes sense.
func (c *clock) ask(servers []string) error {
	if len(servers) == 0 {
		servers = []string{defaultNTP}
	}
	var errs []error
	for _, server := range servers {
		answer, err := ntp.Query(server)
		if err == nil {
			err = answer.Validate()
		}
		if err == nil {
			return c.correct(server, answer.ClockOffset)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *clock) correct(server string, offset time.Duration) error {
	if offset.Abs() < tolerance {
		return slew(offset)
	}
	now := time.Now().Add(offset)
	if now.Before(c.floor) {
		return errors.New(server + " says it is " + now.Format(time.RFC3339) + ", which is before this system was built")
	}
	c.log.Info("setting the clock", "offset", offset, "server", server)
	if err := setClock(now); err != nil {
		return err
	}
	return c.remember()
}

func (*clock) remember() error {
	return durable.WriteFile(clockFile, []byte(strconv.FormatInt(time.Now().Unix(), 10)+"\n"), 0o600)
}

func setClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// slew corrects the clock without a jump. Clearing the flag that says nobody looks after
// it makes the kernel keep the hardware's clock right, too.
func slew(offset time.Duration) error {
	const (
		adjOffset, adjStatus, adjMaxError, adjEstError, adjNano = 0x1, 0x10, 0x4, 0x8, 0x2000
		statusPLL, statusNano                                   = 0x1, 0x2000
	)
	_, err := unix.Adjtimex(&unix.Timex{
		Modes: adjOffset | adjStatus | adjMaxError | adjEstError | adjNano, Offset: offset.Nanoseconds(), Status: statusPLL | statusNano,
	})
	return err
}
