package machine

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"github.com/bothy-os/bothy/api/v1alpha1"
	"github.com/bothy-os/bothy/os/image/fat"
)

func TestSeedsAreKnownByTheirLabels(t *testing.T) {
	for label, seed := range map[string]bool{"BOTHY-SEED": true, "CIDATA": true, "BACKUP": false} {
		f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		v := &fat.Volume{Size: fat.MinSize, Label: label, Time: time.Unix(1e9, 0)}
		if err := errors.Join(f.Truncate(v.Size), v.Write(f)); err != nil {
			t.Fatal(err)
		}
		fstype, got, err := identifyFS(f)
		if err != nil || fstype != "vfat" || got != label || isSeed(got) != seed {
			t.Errorf("%s: %q %q, %v", label, fstype, got, err)
		}
	}
	iso := make([]byte, 17*2048)
	copy(iso[16*2048+1:], "CD001")
	copy(iso[16*2048+40:], fmt.Sprintf("%-32s", "cidata"))
	if fstype, label, err := identifyFS(strings.NewReader(string(iso))); err != nil || fstype != "iso9660" || !isSeed(label) {
		t.Errorf("%q %q, %v", fstype, label, err)
	}
	if _, _, err := identifyFS(strings.NewReader(strings.Repeat("x", 17*2048))); err == nil {
		t.Error("nonsense is identified")
	}
}

func TestASeedIsCopiedWithoutItsConfiguration(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "seed")
	for path, text := range map[string]string{"bothy.yaml": "secret", "keys/age.key": "key", "images/index.json": "{}"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := copySeed(from, to); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(to, "keys/age.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := os.Stat(filepath.Join(to, "bothy.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the configuration was copied, too: %v", err)
	}
}

func TestStringsOfTheSMBIOS(t *testing.T) {
	encoded := smbiosPrefix + base64.StdEncoding.EncodeToString([]byte("hello"))
	structure := append([]byte{11, 5, 0, 0, 2}, []byte("other\x00"+encoded+"\x00\x00")...)
	if got := smbiosStrings(structure); len(got) != 2 || got[1] != encoded {
		t.Errorf("%q", got)
	}
	for _, broken := range [][]byte{nil, {11}, {11, 200, 0}} {
		if got := smbiosStrings(broken); got != nil {
			t.Errorf("%v: %q", broken, got)
		}
	}
}

func TestAWrongConfigurationIsNotHalfUsed(t *testing.T) {
	_, err := decode("bothy.yaml on /dev/sda1", []byte("apiVersion: bothy.dev/v1alpha1\nkind: BootConfig\nrepositroy: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "/dev/sda1") || !strings.Contains(err.Error(), "repositroy") {
		t.Errorf("%v", err)
	}
}

func TestKernelRecords(t *testing.T) {
	for line, want := range map[string]record{
		"6,339,5140900,-;NET: Registered protocol family 10\n":      {slog.LevelInfo, 5140900 * time.Microsecond, "NET: Registered protocol family 10"},
		"3,340,5690716,-;device fails\n SUBSYSTEM=block\n":          {slog.LevelError, 5690716 * time.Microsecond, "device fails"},
		"12,341,1000000,-;bothy-init: level=WARN msg=\"careful\"\n": {slog.LevelWarn, time.Second, "bothy-init: level=WARN msg=\"careful\""},
		"nonsense": {slog.LevelInfo, 0, ""},
	} {
		if got := parseRecord(line); got != want {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestAnAnswerOfDHCPBecomesAnUplink(t *testing.T) {
	ack, err := dhcpv4.New(
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 15)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(192, 0, 2, 2)),
		dhcpv4.WithDNS(net.IPv4(192, 0, 2, 3)), dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(192, 0, 2, 4))), dhcpv4.WithLeaseTime(1000),
	)
	if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	u, err := uplinkOf(&nclient4.Lease{ACK: ack}, link)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %s/%d %s %v %v", u.Interface, u.Address, u.Bits, u.Gateway, u.DNS, u.NTP)
	if want := "eth0 192.0.2.15/24 192.0.2.2 [192.0.2.3] [192.0.2.4]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d := renewal(ack); d != 500*time.Second {
		t.Errorf("renewed after %s", d)
	}
	ack.YourIPAddr = net.IPv4zero
	if _, err := uplinkOf(&nclient4.Lease{ACK: ack}, link); err == nil {
		t.Error("no address is taken for one")
	}
}

func TestTheScreenShowsWhatTheAgentSays(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/v1/status?follow=1" {
			http.NotFound(w, r)
			return
		}
		out := bufio.NewWriter(w)
		fmt.Fprintln(out, `{"git": {"phase": "fetching", "source": {"url": "https://git.example.org/site.git", "lastError": "no route\u001b[2J"}}}`)
		fmt.Fprintln(out, `{"node": {"ready": true}, "git": {"phase": "ready", "accepted": {"commit": "0123456789abcdef", "subject": "First", "signer": "alice"}}, "urls": ["http://192.0.2.15:30080"]}`)
		out.Flush()
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	var shown []string
	s := &state{name: "site"}
	// The server ends the answer, and so the loop.
	err = follow(t.Context(), socket, func(st *agentStatus) {
		st.show(s)
		shown = append(shown, s.text())
	})
	if err == nil || len(shown) != 2 {
		t.Fatalf("%d pictures, %v", len(shown), err)
	}
	for i, words := range [][]string{
		{"fetching", "no route [2J", "check the way to https://git.example.org/site.git"},
		{"ready", "0123456789ab First, signed by alice", "http://192.0.2.15:30080"},
	} {
		for _, w := range words {
			if !strings.Contains(shown[i], w) {
				t.Errorf("picture %d does not say %q:\n%s", i, w, shown[i])
			}
		}
	}
	if strings.Contains(shown[1], "no route") {
		t.Errorf("a problem that is over is still shown:\n%s", shown[1])
	}
}

func TestTheScreenIsTouchedByChangesOnly(t *testing.T) {
	s := newScreen(map[string]string{"PRETTY_NAME": "bothy v1"})
	s.set(func(now *state) { now.doing = "starting" })
	if len(s.dirty) != 0 {
		t.Error("nothing has changed")
	}
	s.set(func(now *state) { now.doing = "waiting" })
	if len(s.dirty) != 1 {
		t.Error("a change is not shown")
	}
}

func TestWaitingForDevicesEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := (&keeper{}).awaitChange(ctx); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

func TestNamesOfMachinesWithoutOne(t *testing.T) {
	for in, want := range map[string]string{"VMware-56 4d": "vmware564d", "\n": "", "ABCDEFGHIJKLMNOP": "abcdefghijkl"} {
		if got := plainName(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestResolverConfiguration(t *testing.T) {
	if got := resolvConf([]string{"192.0.2.3", "nonsense\nnameserver 6.6.6.6", "2001:db8::3"}); !strings.HasSuffix(got, "\nnameserver 192.0.2.3\nnameserver 2001:db8::3\n") {
		t.Errorf("%q", got)
	}
}

func TestAProblemIsShownBeforeTheProcessEnds(t *testing.T) {
	changed := make(chan struct{}, 1)
	changed <- struct{}{}
	k := &keeper{log: slog.New(slog.DiscardHandler), changed: changed, screen: newScreen(nil)}
	problem := errors.New("no such interface")
	if err := k.explain(t.Context(), problem); !errors.Is(err, problem) {
		t.Errorf("%v", err)
	}
	if text := k.screen.state.text(); !strings.Contains(text, "no such interface") {
		t.Errorf("the console shows\n%s", text)
	}
}

func TestAnAddressForAMachineHasAPrefix(t *testing.T) {
	n := &network{want: v1alpha1.BootNetwork{Address: "192.0.2.10"}}
	if _, err := n.static(t.Context()); err == nil || !strings.Contains(err.Error(), "192.0.2.10/24") {
		t.Errorf("%v", err)
	}
}
