package hive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func probe(t *testing.T, d *hive.Dialer, name string) hive.Result {
	t.Helper()
	r, err := d.Probe(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProbe(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	keys := hostKeys(t, server)
	strict := sshdtest.Start(t, "")
	old := sshdtest.Start(t, f.authorized, "KexAlgorithms diffie-hellman-group1-sha1")
	silentHost, silentPort := serve(t, func(conn net.Conn, _ int) { io.Copy(io.Discard, conn) })
	lateHost, latePort := serve(t, func(conn net.Conn, _ int) {
		io.WriteString(conn, "SSH-2.0-x\r\n")
		io.Copy(io.Discard, conn)
	})
	httpHost, httpPort := serve(t, func(conn net.Conn, _ int) {
		io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n"+strings.Repeat("x", 1<<20))
	})
	shutHost, shutPort := serve(t, func(conn net.Conn, _ int) {
		io.WriteString(conn, "SSH-2.0-x\r\n")
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn)
	})
	closedHost, closedPort := "127.0.0.1", "1" // where nobody listens

	f.addServer(t, "online", server, ssh.KeyAlgoED25519)
	f.addServer(t, "online-rsa", server, ssh.KeyAlgoRSA)
	f.addServer(t, "unknown", server)
	f.add(t, "changed", server.Host, server.Port, server.User, otherKey(t))
	f.add(t, "other-type", server.Host, server.Port, server.User, ecdsaKey(t))
	f.addServer(t, "denied", strict, ssh.KeyAlgoED25519)
	f.addWithoutKey(t, "no-key", server.Host, server.Port, server.User, keys...)
	f.addServer(t, "old", old, ssh.KeyAlgoED25519)
	f.add(t, "silent", silentHost, silentPort, "ops", otherKey(t))
	f.add(t, "late", lateHost, latePort, "ops", otherKey(t))
	f.add(t, "http", httpHost, httpPort, "ops", otherKey(t))
	f.add(t, "shut", shutHost, shutPort, "ops", otherKey(t))
	f.add(t, "refused", closedHost, closedPort, "ops", otherKey(t))
	f.add(t, "unreachable", "hive-01.invalid", "22", "ops", otherKey(t))

	d := f.dialer()
	impatient := f.dialer()
	impatient.Timeout = 300 * time.Millisecond
	for _, row := range []struct {
		node string
		want hive.Outcome
		err  error
		says string
		key  string // type of the key that is reported
	}{
		{"online", hive.Online, nil, "", ""},
		{"online-rsa", hive.Online, nil, "", ""},
		{"unknown", hive.HostKeyUnknown, hive.ErrHostKeyUnknown, ssh.FingerprintSHA256(keys[0]), ssh.KeyAlgoED25519},
		{"changed", hive.HostKeyChanged, hive.ErrHostKeyChanged, ssh.FingerprintSHA256(keys[0]), ssh.KeyAlgoED25519},
		{"other-type", hive.HostKeyUnknown, hive.ErrHostKeyUnknown, "SHA256:", ssh.KeyAlgoED25519},
		{"denied", hive.PermissionDeny, hive.ErrPermission, "user", ""},
		{"no-key", hive.NoKey, hive.ErrNoKey, "names no file", ""},
		{"old", hive.ProtocolFailure, hive.ErrProtocol, "diffie-hellman-group1-sha1", ""},
		{"silent", hive.TimedOut, hive.ErrTimeout, "", ""},
		{"late", hive.TimedOut, hive.ErrTimeout, "", ""},
		{"http", hive.ProtocolFailure, hive.ErrProtocol, "", ""},
		{"shut", hive.ProtocolFailure, hive.ErrProtocol, "", ""},
		{"refused", hive.Refused, hive.ErrRefused, closedPort, ""},
		{"unreachable", hive.Unreachable, hive.ErrUnreachable, "hive-01.invalid", ""},
	} {
		t.Run(row.node, func(t *testing.T) {
			d := d
			if row.want == hive.TimedOut {
				d = impatient
			}
			got := probe(t, d, row.node)
			if got.Outcome != row.want || !errors.Is(got.Err, row.err) || row.err != nil && !strings.Contains(got.Err.Error(), row.says) {
				t.Errorf("%s: %v; want %s", got.Outcome, got.Err, row.want)
			}
			switch {
			case (got.Key == nil) != (row.key == ""):
				t.Errorf("key %v, want a %q", got.Key, row.key)
			case got.Key != nil && got.Key.Type() != row.key:
				t.Errorf("key of type %s, want %s", got.Key.Type(), row.key)
			}
		})
	}
	if _, err := d.Probe(t.Context(), "nobody"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

// TestNoKeyIsNoLogin: a server counts an attempt without a key as a failure, and may block
// the address for it.
func TestNoKeyIsNoLogin(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized, "LogLevel VERBOSE")
	f.addWithoutKey(t, "hive-01", server.Host, server.Port, server.User, hostKeys(t, server)...)
	probe(t, f.dialer(), "hive-01")
	f.addServer(t, "hive-02", server, ssh.KeyAlgoED25519)
	probe(t, f.dialer(), "hive-02")
	// By the second login the log has what there was of the first.
	server.Logs(t, "Accepted publickey")
	if log := server.Log(); strings.Contains(log, "Failed") {
		t.Errorf("sshd: %s", log)
	}
}

// TestBusy: a server that closes before it says who it is, is asked again, and is not
// called offline.
func TestBusy(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	var dials atomic.Int32
	always, alwaysPort := serve(t, func(net.Conn, int) { dials.Add(1) })
	host, port := serve(t, func(conn net.Conn, n int) {
		if n > 2 {
			forward(conn, server)
		}
	})
	f.add(t, "always", always, alwaysPort, "ops", otherKey(t))
	f.add(t, "twice", host, port, server.User, hostKeys(t, server)...)
	got := probe(t, f.dialer(), "always")
	if got.Outcome != hive.Busy || got.Outcome.Status() != "" || dials.Load() != 5 {
		t.Errorf("%s: %v, after %d dials", got.Outcome, got.Err, dials.Load())
	}
	if got := probe(t, f.dialer(), "twice"); got.Outcome != hive.Online {
		t.Errorf("%s: %v, want it asked again", got.Outcome, got.Err)
	}
}

// TestMaxStartups: more nodes behind one sshd than it takes logins at a time are all
// online.
func TestMaxStartups(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized, "MaxStartups 8:100:8")
	const nodes = 24
	for n := range nodes {
		f.addServer(t, fmt.Sprint("hive-", n), server, ssh.KeyAlgoED25519)
	}
	d := f.dialer()
	var wg sync.WaitGroup
	for n := range nodes {
		wg.Go(func() {
			if r, err := d.Probe(t.Context(), fmt.Sprint("hive-", n)); err != nil || r.Outcome != hive.Online {
				t.Errorf("hive-%d: %s: %v, %v", n, r.Outcome, r.Err, err)
			}
		})
	}
	wg.Wait()
}

// TestDialsPerAddress counts the logins that are under way at once.
func TestDialsPerAddress(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	var now, most atomic.Int32
	host, port := serve(t, func(conn net.Conn, _ int) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		defer now.Add(-1)
		forward(conn, server)
	})
	for n := range 30 {
		f.add(t, fmt.Sprint("hive-", n), host, port, server.User, hostKeys(t, server)...)
	}
	d := f.dialer()
	var wg sync.WaitGroup
	for n := range 30 {
		wg.Go(func() {
			if r, err := d.Probe(t.Context(), fmt.Sprint("hive-", n)); err != nil || r.Outcome != hive.Online {
				t.Errorf("hive-%d: %s: %v, %v", n, r.Outcome, r.Err, err)
			}
		})
	}
	wg.Wait()
	// One that is ending counts as well.
	if n := most.Load(); n > 8 || n < 2 {
		t.Errorf("%d dials at once", n)
	}
}

// TestEndedContext: it says nothing of the node.
func TestEndedContext(t *testing.T) {
	f := newFleet(t)
	host, port := serve(t, func(conn net.Conn, _ int) { io.Copy(io.Discard, conn) })
	f.add(t, "hive-01", host, port, "ops", otherKey(t))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if r, err := f.dialer().Probe(ctx, "hive-01"); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v, want context.Canceled", r, err)
	}
}

// TestAuditOfProbes: a key that is used again and again has one row.
func TestAuditOfProbes(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	f.addServer(t, "hive-01", server, ssh.KeyAlgoED25519)
	d := f.dialer()
	for range 3 {
		if r := probe(t, d, "hive-01"); r.Outcome != hive.Online {
			t.Fatal(r.Err)
		}
	}
	uses := 0
	err := f.Vault().View(t.Context(), func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			if row.Action == string(registry.ActionUseSSHKey) {
				uses++
			}
		}
		return nil
	})
	if err != nil || uses != 1 {
		t.Errorf("%d rows, %v", uses, err)
	}
}

// TestDialsAtOnce counts the logins to many addresses that are under way at once.
func TestDialsAtOnce(t *testing.T) {
	f := newFleet(t)
	var now atomic.Int32
	for n := range 100 {
		host, port := serve(t, func(conn net.Conn, _ int) {
			now.Add(1)
			defer now.Add(-1)
			io.Copy(io.Discard, conn)
		})
		f.add(t, fmt.Sprint("hive-", n), host, port, "ops")
	}
	ctx, cancel := context.WithCancel(t.Context())
	d := f.dialer()
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() { d.Probe(ctx, fmt.Sprint("hive-", n)) })
	}
	for deadline := time.Now().Add(20 * time.Second); now.Load() < 64 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond) // for more, which there must not be
	if n := now.Load(); n != 64 {
		t.Errorf("%d logins at once, want 64", n)
	}
	cancel()
	wg.Wait()
}
