package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bothy-os/bothy/internal/durable"
	"github.com/bothy-os/bothy/os/boot"
	"github.com/bothy-os/bothy/os/boot/disks"
)

// bundlesName is the directory of a seed volume with bundles: commits, images and the operating
// system for a machine that has no network to fetch them from.
const bundlesName = "bundles"

// volume is a seed volume that is plugged in.
type volume struct{ device, fstype string }

// courier takes in bundles that somebody brings on a volume. What is in them is trusted by what signed
// it, as if it had come over a network.
type courier struct {
	log *slog.Logger
	// show puts a line on the console.
	show func(text string)
	// volumes are those that are plugged in; mounted has one mounted while do runs.
	volumes func() []volume
	mounted func(v volume, do func(dir string) error) error
	// take brings in the bundles of a directory, and says what they were.
	take func(ctx context.Context, dir string) (string, error)
	// kept is where bundles are that came along with the boot configuration.
	kept string
	// record is the file with what was taken in, so that a volume that stays where it is costs nothing.
	record string
	// seen is what the volumes had that are plugged in. One that is taken out and plugged in again is meant.
	seen map[volume]string
}

func (k *keeper) newCourier() *courier {
	return &courier{
		log: k.log, show: func(text string) { k.screen.set(func(s *state) { s.bundles = text }) },
		volumes: seedVolumes, take: importBundles,
		mounted: func(v volume, do func(string) error) error {
			return withSeed(v.device, v.fstype, func() error { return do(seedMount) })
		},
		kept: filepath.Join(seedDir, bundlesName), record: filepath.Join(stateDir, "bundles.json"),
	}
}

func seedVolumes() (out []volume) {
	for _, device := range disks.All() {
		if fstype, label, err := identify(device); err == nil && isSeed(label) {
			out = append(out, volume{device, fstype})
		}
	}
	return out
}

// importBundles has the agent's program do it: what bundles are is not known here. A node that runs takes notice by itself.
func importBundles(ctx context.Context, dir string) (string, error) {
	var said, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(BinDir, "bothy"), "image", "import", "--state", boot.StateDir, dir)
	cmd.Env = []string{"PATH=" + BinDir}
	cmd.Stdout, cmd.Stderr = &said, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, lastLine(complaint.String()))
	}
	return strings.Join(strings.FieldsFunc(said.String(), func(r rune) bool { return r == '\n' }), "; "), nil
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// all takes in what is new: beside the boot configuration, and on each volume.
func (c *courier) all(ctx context.Context) {
	c.takeKept(ctx)
	now := map[volume]string{}
	for _, v := range c.volumes() {
		mark, err := c.takeFrom(ctx, v)
		if err != nil && ctx.Err() == nil {
			c.log.Error("the bundles of a volume were not taken in", "device", v.device, "err", err)
			c.show(fmt.Sprintf("those on %s were not taken in: %v; plug it in again, or another", v.device, err))
		}
		now[v] = mark
	}
	c.seen = now
}

// takeKept takes in what came with the boot configuration. Then it is in the node's store, and not needed twice.
func (c *courier) takeKept(ctx context.Context) {
	if _, err := os.Stat(c.kept); err != nil {
		return
	}
	c.show("taking in those that came with the boot configuration")
	mark, err := fingerprint(c.kept)
	var said string
	if err == nil {
		said, err = c.take(ctx, c.kept)
	}
	if err == nil {
		err = c.remember(mark)
	}
	if err == nil {
		err = os.RemoveAll(c.kept)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Error("the bundles that came with the boot configuration were not taken in", "err", err)
		c.show("those that came with the boot configuration were not taken in: " + err.Error() + "; plug in a volume with others")
		return
	}
	c.done(said)
}

// takeFrom takes in the bundles of a volume, unless they are known, and returns what tells them from others.
func (c *courier) takeFrom(ctx context.Context, v volume) (mark string, err error) {
	err = c.mounted(v, func(top string) error {
		dir := filepath.Join(top, bundlesName)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var err error
		if mark, err = fingerprint(dir); err != nil {
			return err
		}
		known := c.seen[v] == mark
		if c.seen == nil { // the first look after a start: it may have stayed where it was
			known = slices.Contains(c.remembered(), mark)
		}
		if known {
			return nil
		}
		c.show("taking in those on " + v.device + "; leave it where it is")
		said, err := c.take(ctx, dir)
		if err != nil {
			return err
		}
		c.done(said)
		return c.remember(mark)
	})
	return mark, err
}

func (c *courier) done(said string) {
	c.log.Info("bundles were taken in", "result", said)
	c.show("taken in: " + said)
}

// maxRemembered bounds the record.
const maxRemembered = 32

func (c *courier) remembered() []string {
	var marks []string
	if err := durable.ReadJSON(c.record, &marks); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("what bundles were taken in is not known any more; they are read once more", "err", err)
	}
	return marks
}

func (c *courier) remember(mark string) error {
	marks := c.remembered()
	if slices.Contains(marks, mark) {
		return nil
	}
	marks = append(marks, mark)
	return durable.WriteJSON(c.record, marks[max(0, len(marks)-maxRemembered):], 0o600)
}

// enoughOfABundle is, in bytes, how much of a file tells it from others of the same size: a bundle begins with the digests of all
// that it has.
const enoughOfABundle = 1 << 20

// fingerprint tells the bundles in a directory from others without reading them in full.
func fingerprint(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %d\n", rel, info.Size())
		if strings.HasSuffix(rel, ".json") || filepath.Dir(rel) == "." {
			return copyStart(sum, path)
		}
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

func copyStart(to io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, io.LimitReader(f, enoughOfABundle))
	return err
}
