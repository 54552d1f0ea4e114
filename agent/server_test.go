package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestConfirm: the question names what is to be signed and by whom, and its answer
// decides.
func TestConfirm(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	git := f.addKey(t, "git")
	var asked []registry.Signature
	var answer error
	meanwhile := func() {}
	a := f.start(t, func(c *Config) {
		c.AllowUnbound = []string{ssh.FingerprintSHA256(git)}
		c.Confirm = func(_ context.Context, s registry.Signature) error {
			asked = append(asked, s)
			meanwhile()
			return answer
		}
	})
	c := a.dial(t)
	c.bind(host, "s1", 0)
	sign := func() bool { return c.sign(key, login("s1", key, nil).data(), 0) }
	if !sign() || !a.dial(t).sign(git, fileData("git").data(), 0) {
		t.Error("a confirmed signature was not made")
	}
	rows := len(f.signed(t))
	if len(asked) != 2 || fmt.Sprint(asked[0].Nodes) != "[hive-01]" || asked[0].User != "ops" || asked[0].Fingerprint != ssh.FingerprintSHA256(key) ||
		!strings.HasPrefix(asked[0].Peer, fmt.Sprintf("pid %d (/", pid())) || asked[1].Namespace != "git" || asked[1].Nodes != nil {
		t.Errorf("asked about %+v", asked)
	}
	answer = errors.New("no")
	if sign() {
		t.Error("a refused signature was made")
	}
	answer = nil
	meanwhile = func() { _, err := f.ForgetHostKeys(t.Context(), "", "hive-01"); check(t, err) }
	if sign() {
		t.Error("the pin was removed meanwhile")
	}
	_, err := f.TrustHostKey(t.Context(), "hive-01", host.PublicKey())
	check(t, err)
	meanwhile = func() {
		f.addNode(t, "hive-02", host.PublicKey())
		check(t, f.AssignSSHKey(t.Context(), ssh.FingerprintSHA256(key), "hive-02"))
	}
	if sign() {
		t.Error("another node joined meanwhile")
	}
	meanwhile = func() { a.dial(t).locks("x") }
	if sign() {
		t.Error("the agent was locked meanwhile")
	}
	a.dial(t).unlocks("x")
	meanwhile = func() {}
	n := len(asked)
	if c.sign(git, login("s1", git, nil).data(), 0) || c.sign(key, login("s2", key, nil).data(), 0) || len(asked) != n {
		t.Error("asked about what is refused anyway")
	}
	if got := len(f.signed(t)); got != rows {
		t.Errorf("%d audit rows, want %d", got, rows)
	}
}

// TestAuditedFirst: as long as the audit row is not written, nothing is signed.
func TestAuditedFirst(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 100 * time.Millisecond
	f := fleet{registry.New(vaulttest.Open(t, cfg))}
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	a := f.start(t, nil)
	c := a.dial(t)
	c.bind(host, "s1", 0)
	check(t, f.Vault().Update(t.Context(), func(*vault.Tx) error { // another writer
		if list := c.list(); len(list) != 1 || c.sign(key, login("s1", key, nil).data(), 0) {
			t.Errorf("signed without an audit row; lists %q", list)
		}
		return nil
	}))
	if !strings.Contains(a.log.String(), vault.ErrLocked.Error()) {
		t.Errorf("the log does not say why: %s", a.log)
	}
	if !c.sign(key, login("s1", key, nil).data(), 0) || len(f.signed(t)) != 1 {
		t.Errorf("audited %q", f.signed(t))
	}
}

// TestLender: the agent works with whatever registry it is lent, and fails where it gets
// none.
func TestLender(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	var closed atomic.Bool
	c := f.start(t, func(c *Config) {
		c.Registry = func(_ context.Context, use func(*registry.Registry) error) error {
			if closed.Load() {
				return errors.New("closed")
			}
			return use(f.Registry)
		}
	}).dial(t)
	c.bind(host, "s1", 0)
	sign := func() bool { return c.sign(key, login("s1", key, nil).data(), 0) }
	if !sign() {
		t.Error("not signed")
	}
	closed.Store(true)
	if sign() || c.succeeds([]byte{msgRequestIdentities}) {
		t.Error("a registry that was not lent was used")
	}
	closed.Store(false)
	if !sign() {
		t.Error("not signed afterwards")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("an agent without a registry")
	}
}

// TestPeer: only processes of our own user are served.
func TestPeer(t *testing.T) {
	f := newFleet(t)
	s, err := New(Config{Registry: Lend(f.Registry)})
	check(t, err)
	for name, row := range map[string]struct {
		uid    int
		served bool
	}{"ours": {os.Getuid(), true}, "another's": {os.Getuid() + 1, false}} {
		s.uid = row.uid
		l, err := unixsocket.Listen(shortDir(t) + "/agent")
		check(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx, l) })
		conn, err := net.Dial("unix", l.Addr().String())
		check(t, err)
		conn.Write(frame([]byte{msgRequestIdentities}))
		n, err := conn.Read(make([]byte, 16))
		if served := n > 0; served != row.served {
			t.Errorf("%s: served %t, %v", name, served, err)
		}
		cancel()
		wg.Wait()
		conn.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx, l) })
	conn, err := net.Dial("tcp", l.Addr().String())
	check(t, err)
	conn.Write(frame([]byte{msgRequestIdentities}))
	if n, _ := conn.Read(make([]byte, 16)); n > 0 {
		t.Error("served over TCP")
	}
	conn.Close()
	cancel()
	wg.Wait()
}

// TestConcurrent has a hundred connections sign at once. Each signature has its audit row,
// the rows share transactions, and no goroutine is left afterwards.
func TestConcurrent(t *testing.T) {
	const connections, each = 100, 5
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	before := runtime.NumGoroutine()
	a := f.start(t, nil)
	var signed atomic.Int32
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range connections {
		c := a.dial(t)
		wg.Go(func() {
			<-begin
			session := fmt.Sprint("session ", i)
			if !c.bind(host, session, 0) {
				t.Error("a bind was refused")
			}
			for range each {
				if c.sign(key, login(session, key, nil).data(), 0) {
					signed.Add(1)
				}
			}
		})
	}
	close(begin)
	wg.Wait()
	rows, instants := f.signatureRows(t)
	if int(signed.Load()) != connections*each || rows != connections*each || instants >= rows {
		t.Errorf("%d signatures, %d audit rows of %d instants, want %d", signed.Load(), rows, instants, connections*each)
	}
	// The connections are open still.
	a.stop()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
	if _, err := os.Lstat(a.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestServeWaits: when Serve returns, no request is under way.
func TestServeWaits(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	begun := make(chan struct{})
	var ended atomic.Bool
	a := f.start(t, func(c *Config) {
		c.Registry = func(ctx context.Context, _ func(*registry.Registry) error) error {
			close(begun)
			<-ctx.Done()
			time.Sleep(50 * time.Millisecond)
			ended.Store(true)
			return ctx.Err()
		}
	})
	c := a.dial(t)
	c.bind(host, "s1", 0)
	_, err := c.conn.Write(frame([]byte{msgRequestIdentities}))
	check(t, err)
	<-begun
	a.stop()
	if !ended.Load() {
		t.Error("Serve returned, and a request is under way")
	}
}

// TestLimit: connections beyond the number wait, and are served when others end.
func TestLimit(t *testing.T) {
	a := newFleet(t).start(t, nil)
	var open []client
	for range maxConnections {
		c := a.dial(t)
		c.list()
		open = append(open, c)
	}
	late := a.dial(t)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		late.list()
	}()
	select {
	case <-answered:
		t.Error("more connections than the limit are served")
	case <-time.After(200 * time.Millisecond):
	}
	open[7].conn.Close()
	<-answered
}

// TestGroup: signatures that come while a transaction commits share the next one.
func TestGroup(t *testing.T) {
	f := newFleet(t)
	key := f.addKey(t, "a")
	au := newAuditor(&registry.KeyCache{})
	au.turn <- struct{}{} // a commit is under way
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := au.sign(t.Context(), f.Registry, fileRequest(ssh.FingerprintSHA256(key))); err != nil {
				t.Error(err)
			}
		})
	}
	var gone error
	wg.Go(func() {
		_, gone = au.sign(t.Context(), f.Registry, fileRequest("SHA256:gone"))
	})
	for waiting := 0; waiting < 21; runtime.Gosched() {
		au.mu.Lock()
		waiting = len(au.waiting)
		au.mu.Unlock()
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := au.sign(cancelled, f.Registry, fileRequest("SHA256:late")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's end", err)
	}
	<-au.turn
	wg.Wait()
	if !errors.Is(gone, registry.ErrNotFound) {
		t.Errorf("%v for a key that is gone", gone)
	}
	if rows, instants := f.signatureRows(t); rows != 20 || instants != 1 {
		t.Errorf("%d rows, of %d instants", rows, instants)
	}
}

func fileRequest(fingerprint string) registry.SignatureRequest {
	return registry.SignatureRequest{Signature: registry.Signature{Fingerprint: fingerprint, Namespace: "git"}, Data: []byte("data")}
}
