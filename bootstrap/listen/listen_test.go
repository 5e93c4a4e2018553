package listen

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestCheckNamesTheProcess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	err = Check(addr, "spec.controlPlane.port")
	if err == nil {
		t.Fatal("the address is free")
	}
	for _, want := range []string{addr.String(), "process " + strconv.Itoa(os.Getpid()), "spec.controlPlane.port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
}

func TestCheckFindsAWildcardListener(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Addr().(*net.TCPAddr).AddrPort().Port())
	if err := Check(addr, "x"); err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Error(err)
	}
}

func TestCheckFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	if err := Check(addr, "x"); err != nil {
		t.Error(err)
	}
}

func TestCheckForeignAddress(t *testing.T) {
	err := Check(netip.MustParseAddrPort("192.0.2.1:6443"), "x")
	if err == nil || !strings.Contains(err.Error(), "no address") {
		t.Error(err)
	}
}

func TestCovers(t *testing.T) {
	if !covers("0100007F", netip.MustParseAddr("127.0.0.1")) || covers("0100007F", netip.MustParseAddr("127.0.0.2")) {
		t.Error("IPv4")
	}
	if !covers("00000000000000000000000001000000", netip.MustParseAddr("::1")) {
		t.Error("IPv6")
	}
	if !covers("00000000", netip.MustParseAddr("10.0.0.1")) {
		t.Error("unspecified")
	}
}
