package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bothy-os/bothy/test/cluster"
)

// serve answers on a port of a pod, over TCP and UDP, with the pod's address and port.
func serve(t *testing.T, ns *cluster.Namespace, ip string, port int) {
	t.Helper()
	self := net.JoinHostPort(ip, strconv.Itoa(port))
	l, err := ns.Listen("tcp", self)
	if err != nil {
		t.Fatal(err)
	}
	packets, err := ns.ListenPacket("udp", self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); packets.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, self)
			conn.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(fmt.Appendf(nil, "%s %s", buf[:n], self), from) // a lost one is missed by the client
		}
	}()
}

// connect returns who answers at a Service.
func (c *churn) connect(ctx context.Context, ip string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := c.client.Dial(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(churnPort)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// churnLoad is who uses the Services meanwhile.
type churnLoad struct{ done sync.WaitGroup }

func (l *churnLoad) wait() { l.done.Wait() }

// startLoad makes new connections at a steady rate, to one Service after the other, and
// has a socket send datagrams to each.
func (c *churn) startLoad(ctx context.Context) *churnLoad {
	l := &churnLoad{}
	l.done.Go(func() {
		steadily(ctx, connectRate, func(i int) {
			l.done.Go(func() { c.connection(context.WithoutCancel(ctx), c.ips[i%len(c.ips)]) })
		}, c.book.lagged)
	})
	for _, ip := range c.ips {
		l.done.Go(func() {
			if err := c.datagrams(ctx, ip); err != nil {
				c.book.fail("datagrams to "+ip, err)
			}
		})
	}
	return l
}

func (c *churn) connection(ctx context.Context, ip string) {
	begun := time.Now()
	who, err := c.connect(ctx, ip)
	if err != nil {
		c.book.fail("connection to "+ip, err)
		return
	}
	c.book.used("connection", who, begun)
}

// datagrams sends from one socket for all the time.
func (c *churn) datagrams(ctx context.Context, ip string) error {
	conn, err := c.client.Dial(ctx, "udp", net.JoinHostPort(ip, strconv.Itoa(churnPort)))
	if err != nil {
		return err
	}
	defer conn.Close()
	tick := time.NewTicker(datagramPace + rand.N(10*time.Millisecond)) // not all at once
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		begun := time.Now()
		who, err := ask(conn, n)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			c.book.lost()
		case err != nil:
			return err
		default:
			c.book.used("datagram", who, begun)
		}
	}
}

// ask sends a numbered datagram and returns who answers it.
func ask(conn net.Conn, n int) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprint(conn, n); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	for {
		k, err := conn.Read(buf)
		if err != nil {
			return "", err
		}
		number, who, _ := strings.Cut(string(buf[:k]), " ")
		if number == strconv.Itoa(n) { // else it is late
			return who, nil
		}
	}
}
