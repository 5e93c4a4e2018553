package encryption

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, time.June, 1, 12, 0, 0, 0, time.UTC)

// cluster plays the API server and etcd: it loads the configuration file,
// encrypts with its first key, and refuses what it cannot decrypt.
type cluster struct {
	t          *testing.T
	configFile string
	keys       []string          // of the loaded configuration
	secrets    map[string]string // name to key
	calls      int
	failAt     int // the call that fails, as if the process died
	onRewrite  func(c *cluster)
}

var errKilled = errors.New("killed")

func (c *cluster) step() error {
	c.calls++
	if c.calls == c.failAt {
		return errKilled
	}
	return nil
}

func (c *cluster) load() []byte {
	data, err := os.ReadFile(c.configFile)
	if err != nil {
		c.t.Fatal(err)
	}
	var config struct {
		Resources []struct {
			Providers []struct {
				Secretbox struct {
					Keys []struct{ Name, Secret string }
				}
			}
		}
	}
	if err := json.Unmarshal(data, &config); err != nil {
		c.t.Fatal(err)
	}
	c.keys = nil
	for _, k := range config.Resources[0].Providers[0].Secretbox.Keys {
		if raw, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(raw) != 32 {
			c.t.Fatalf("key %s has %d bytes (%v)", k.Name, len(raw), err)
		}
		c.keys = append(c.keys, k.Name)
	}
	for name, key := range c.secrets {
		if !strings.Contains(strings.Join(c.keys, " "), key) {
			c.t.Fatalf("secret %s is lost: it needs %s, there is %v", name, key, c.keys)
		}
	}
	return data
}

func (c *cluster) WaitLoaded(_ context.Context, hash string) error {
	if err := c.step(); err != nil {
		return err
	}
	if got := Hash(c.load()); got != hash {
		c.t.Fatalf("waits for %s, the file is %s", hash, got)
	}
	return nil
}

func (c *cluster) Rewrite(context.Context) (int, error) {
	if err := c.step(); err != nil {
		return 0, err
	}
	for name := range c.secrets {
		c.secrets[name] = c.keys[0]
	}
	if c.onRewrite != nil {
		c.onRewrite(c)
	}
	return len(c.secrets), nil
}

func (c *cluster) Outdated(_ context.Context, prefix string) (int, error) {
	if err := c.step(); err != nil {
		return 0, err
	}
	n := 0
	for _, key := range c.secrets {
		if !strings.HasPrefix(Prefix(key)+"ciphertext", prefix) {
			n++
		}
	}
	return n, nil
}

type fixture struct {
	t            *testing.T
	ring, config string
	*cluster
}

func newFixture(t *testing.T) *fixture {
	dir := t.TempDir()
	f := &fixture{t: t, ring: filepath.Join(dir, "keys.json"), config: filepath.Join(dir, "encryption.json")}
	f.cluster = &cluster{t: t, configFile: f.config, secrets: map[string]string{}}
	r := f.open(true)
	f.load()
	for _, name := range []string{"a", "b", "c"} {
		f.secrets[name] = r.ring.Writer().Name
	}
	return f
}

func (f *fixture) open(fresh bool) *Rotator {
	f.t.Helper()
	r, err := Open(f.ring, f.config, fresh, noon, slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func TestRotate(t *testing.T) {
	f := newFixture(t)
	r := f.open(false)
	old := r.ring.Writer().Name
	if err := r.Rotate(t.Context(), f.cluster, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	step, created := r.State()
	if step != Stable || !created.Equal(noon.Add(time.Hour)) {
		t.Errorf("state %s, key from %v", step, created)
	}
	if len(f.keys) != 1 || f.keys[0] == old {
		t.Errorf("keys in use: %v, the old one was %s", f.keys, old)
	}
	if data, _ := os.ReadFile(f.ring); strings.Contains(string(data), old) {
		t.Error("the old key is still on disk")
	}
}

// TestRotationSurvivesDeathAnywhere kills the process at each call in turn and
// starts it again.
func TestRotationSurvivesDeathAnywhere(t *testing.T) {
	deaths := 0
	for failAt := 1; ; failAt++ {
		f := newFixture(t)
		old := f.open(false).ring.Writer().Name
		f.failAt = failAt
		err := f.open(false).Rotate(t.Context(), f.cluster, noon)
		if err == nil {
			break // there is no such call
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("call %d: %v", failAt, err)
		}
		deaths++
		f.failAt = 0
		r := f.open(false)
		f.load() // the API server starts with what was rendered, and reads everything
		if err := r.Resume(t.Context(), f.cluster); err != nil {
			t.Fatalf("resume after death at call %d: %v", failAt, err)
		}
		if step, _ := r.State(); step != Stable || r.ring.Writer().Name == old {
			t.Errorf("death at call %d: step %s, key changed: %v", failAt, step, r.ring.Writer().Name != old)
		}
		for name, key := range f.secrets {
			if key == old {
				t.Errorf("death at call %d: secret %s still uses the old key", failAt, name)
			}
		}
	}
	if deaths < 4 {
		t.Errorf("only %d places to die: the test misses steps", deaths)
	}
}

func TestOldKeyIsKeptWhileASecretNeedsIt(t *testing.T) {
	f := newFixture(t)
	old := f.secrets["a"]
	f.onRewrite = func(c *cluster) { c.secrets["stuck"] = old }
	r := f.open(false)
	if err := r.Rotate(t.Context(), f.cluster, noon); err == nil {
		t.Fatal("the rotation ended")
	}
	f.load() // fails the test if a secret cannot be read
	if step, _ := r.State(); step != Promoted {
		t.Errorf("step %s", step)
	}
	f.onRewrite = nil
	if err := r.Resume(t.Context(), f.cluster); err != nil {
		t.Fatal(err)
	}
}

func TestResumeWithoutRotationDoesNothing(t *testing.T) {
	f := newFixture(t)
	before, _ := os.ReadFile(f.ring)
	if err := f.open(false).Resume(t.Context(), f.cluster); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(f.ring); string(after) != string(before) || f.calls > 0 {
		t.Error("something happened")
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	for name, content := range map[string]string{
		"not json": "xx", "empty": "", "no keys": `{"step":"stable","keys":[]}`, "unknown step": `{"step":"half"}`,
		"short key": `{"step":"stable","keys":[{"name":"k","secret":"AAAA"}]}`,
	} {
		file := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file, true, noon)
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "keys.json"), false, noon); err == nil {
		t.Error("a new key was made for a cluster that has Secrets")
	}
}

func TestKeyFileMode(t *testing.T) {
	f := newFixture(t)
	for _, file := range []string{f.ring, f.config} {
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", file, st.Mode(), err)
		}
	}
}

func TestOld(t *testing.T) {
	const quarter = 90 * 24 * time.Hour
	for name, tc := range map[string]struct {
		created time.Time
		want    bool
	}{
		"young": {noon.Add(-time.Hour), false}, "just old": {noon.Add(-quarter), true}, "made in 1970": {time.Unix(0, 0), true},
		"clock a day behind": {noon.Add(24 * time.Hour), false}, "made by a wrong clock": {noon.AddDate(5, 0, 0), true},
	} {
		if got := Old(tc.created, noon, quarter); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
