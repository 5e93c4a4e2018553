package appliance

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// serving returns the certificate of the API server.
func serving(t *testing.T) (notBefore, notAfter time.Time) {
	t.Helper()
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", apiPort), &tls.Config{InsecureSkipVerify: true}) // reached at an address that is not in it
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := conn.ConnectionState().PeerCertificates[0]
	return c.NotBefore, c.NotAfter
}

// A machine whose battery is empty, one that was in a store room for more than a year, and one
// whose line is down: all come up with what they have.
func TestAMachineComesUpInHardConditions(t *testing.T) {
	long(t)
	s := newSite(t)
	disk := s.disk
	disk.File = s.bench.disk(t)
	m := s.boot(t, ordinary, disk, s.seedWith(t, "seed", ""))
	s.awaitWorkload(t, m)
	again := func(t *testing.T, args ...string) *machine {
		t.Helper()
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		before := s.args
		s.args = append(before, args...)
		m = s.boot(t, ordinary, disk)
		s.args = before
		return m
	}
	t.Run("1970", func(t *testing.T) {
		m := again(t, "-rtc", "base=1970-01-01T00:00:00")
		s.awaitWorkload(t, m)
	})
	t.Run("400 days later", func(t *testing.T) {
		later := time.Now().Add(400 * 24 * time.Hour).UTC()
		m := again(t, "-rtc", "base="+later.Format("2006-01-02T15:04:05"))
		s.awaitWorkload(t, m)
		if from, to := serving(t); later.Before(from) || later.After(to) {
			t.Errorf("the certificate of the API server is valid from %s to %s, it is %s", from, to, later)
		}
	})
	t.Run("no uplink", func(t *testing.T) {
		m := again(t)
		s.qmp(t, `{"execute": "set_link", "arguments": {"name": "net", "up": false}}`)
		m.awaitPicture(t)
		m.await(t, m.patience(), regexp.MustCompile(`address +10\.0\.2\.15 on eth0`))
		m.await(t, m.patience(), regexp.MustCompile(`state +ready[^,]*\n(.*\n)*? +answers +http://10\.0\.2\.15:30080`))
		s.qmp(t, `{"execute": "set_link", "arguments": {"name": "net", "up": true}}`)
		s.answers(t, m)
	})
}

// qmp tells QEMU something.
func (b *bench) qmp(t *testing.T, command string) {
	t.Helper()
	var conn net.Conn
	cluster.Eventually(t, time.Minute, "QEMU to listen", func() (err error) {
		conn, err = net.Dial("unix", filepath.Join(b.dir, "qmp"))
		return err
	})
	defer conn.Close()
	in := bufio.NewScanner(conn)
	for _, c := range []string{`{"execute": "qmp_capabilities"}`, command} {
		if _, err := fmt.Fprintln(conn, c); err != nil {
			t.Fatal(err)
		}
		for in.Scan() && !strings.Contains(in.Text(), `"return"`) {
			if strings.Contains(in.Text(), `"error"`) {
				t.Fatalf("%s: %s", c, in.Text())
			}
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
}
