package etcd

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// logged collects log lines.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func config(t *testing.T) (Config, *logged) {
	// Not t.TempDir, whose path may be too long for a socket.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	// After a failed start etcd still prepares its next log file for a moment.
	t.Cleanup(func() {
		deadline := time.After(10 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for os.RemoveAll(dir) != nil {
			select {
			case <-tick.C:
			case <-deadline:
				t.Errorf("cannot remove %s: something still writes to it", dir)
				return
			}
		}
	})
	lines := &logged{}
	return Config{
		Dir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "run", "etcd.sock"), HTTPSocket: filepath.Join(dir, "run", "etcd-http.sock"),
		QuotaMiB: 64, Log: slog.New(slog.NewTextHandler(lines, nil)),
	}, lines
}

func mustStart(t *testing.T, cfg Config) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects through the socket, as the API server does.
func dial(t *testing.T, cfg Config) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + cfg.Socket}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestDataOutlivesAStart(t *testing.T) {
	cfg, lines := config(t)
	s := mustStart(t, cfg)
	if _, err := s.Client().Put(t.Context(), "/k", "v"); err != nil {
		t.Fatal(err)
	}
	if file, used := s.Size(); file <= 0 || used <= 0 {
		t.Errorf("size %d, used %d", file, used)
	}
	s.Close()

	s = mustStart(t, cfg)
	defer s.Close()
	got, err := dial(t, cfg).Get(t.Context(), "/k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		t.Errorf("got %v, %v", got, err)
	}
	if out := lines.String(); out != "" {
		t.Errorf("a healthy start and stop is logged about:\n%s", out)
	}
}

func TestOnlyItsOwnSockets(t *testing.T) {
	cfg, _ := config(t)
	before := abstractSockets(t)
	s := mustStart(t, cfg)
	defer s.Close()
	for _, dir := range []string{cfg.Dir, filepath.Dir(cfg.Socket)} {
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, st.Mode(), err)
		}
	}
	for name := range abstractSockets(t) {
		if !before[name] {
			t.Errorf("listens on the abstract socket %s, which has no permissions", name)
		}
	}
}

// abstractSockets are the listening unix sockets that are not files.
func abstractSockets(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		t.Skipf("cannot list sockets: %v", err)
	}
	out := map[string]bool{}
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		const acceptsConnections = "00010000"
		if len(f) == 8 && f[3] == acceptsConnections && strings.HasPrefix(f[7], "@") {
			out[f[7]] = true
		}
	}
	return out
}

func TestDirectoryModesAreRepaired(t *testing.T) {
	cfg, _ := config(t)
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, cfg)
	defer s.Close()
	if st, err := os.Stat(filepath.Dir(cfg.Socket)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestDamagedDataIsAClearError(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"database overwritten": func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "member/snap/db")) },
		"log overwritten": func(t *testing.T, dir string) {
			logs, err := filepath.Glob(filepath.Join(dir, "member/wal/*.wal"))
			if err != nil || len(logs) == 0 {
				t.Fatalf("no log: %v", err)
			}
			overwrite(t, logs[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := config(t)
			s := mustStart(t, cfg)
			if _, err := s.Client().Put(t.Context(), "/k", "v"); err != nil {
				t.Fatal(err)
			}
			s.Close()
			damage(t, cfg.Dir)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			s, err := Start(ctx, cfg)
			if err == nil {
				s.Close()
				t.Fatal("it starts")
			}
			for _, want := range []string{cfg.Dir, "damaged", "snapshot"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
		})
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := min(st.Size(), 1<<20)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{0xA5}, int(size))); err != nil {
		t.Fatal(err)
	}
}

func TestQuotaIsEnforced(t *testing.T) {
	cfg, _ := config(t)
	cfg.QuotaMiB = 1
	s := mustStart(t, cfg)
	defer s.Close()
	client := dial(t, cfg)
	value := strings.Repeat("x", 256<<10)
	// The size is known at each commit, so a burst may go beyond the quota.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		_, err := client.Put(t.Context(), "/k"+strconv.FormatInt(time.Now().UnixNano(), 10), value)
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "space exceeded") {
			t.Errorf("refused with %v", err)
		}
		return
	}
	t.Error("the quota of 1 MiB is not enforced")
}

func TestValidateSocketPath(t *testing.T) {
	cfg, _ := config(t)
	cfg.Socket = "/" + strings.Repeat("x", 120)
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Error(err)
	}
}
