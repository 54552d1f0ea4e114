package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
	"golang.org/x/crypto/ssh"
)

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c client) locks(passphrase string) bool {
	c.t.Helper()
	return c.succeeds(ssh.Marshal(lockMessage{[]byte(passphrase)}))
}

func (c client) unlocks(passphrase string) bool {
	c.t.Helper()
	return c.succeeds(ssh.Marshal(unlockMessage{[]byte(passphrase)}))
}

// TestLock: a locked agent lists and signs nothing on any connection, until it is unlocked
// with the passphrase.
func TestLock(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	a := f.start(t, nil)
	var waited []time.Duration
	a.Server.lock.sleep = func(_ context.Context, d time.Duration) error {
		waited = append(waited, d)
		return nil
	}
	bound, other := a.dial(t), a.dial(t)
	bound.bind(host, "s1", 0)
	want := func(usable bool, when string) {
		t.Helper()
		if list := bound.list(); len(list) > 0 != usable {
			t.Errorf("%s: lists %q", when, list)
		}
		if ok := bound.sign(key, login("s1", key, nil).data(), 0); ok != usable {
			t.Errorf("%s: signs: %t", when, ok)
		}
	}
	want(true, "at first")
	if a.Server.keys.Len() != 1 {
		t.Error("the key was not kept for the next signature")
	}
	if other.unlocks("planted") || other.locks("") {
		t.Error("unlocked what was not locked, or locked with no passphrase")
	}
	want(true, "still")
	if !other.locks("planted") {
		t.Fatal("not locked")
	}
	if a.Server.keys.Len() != 0 {
		t.Error("a locked agent keeps a private key")
	}
	want(false, "locked")
	if other.locks("second") {
		t.Error("locked twice")
	}
	for _, wrong := range []string{"second", "", "planteD"} {
		if other.unlocks(wrong) {
			t.Errorf("unlocked with %q", wrong)
		}
	}
	if bound.unlocks("planted") {
		t.Error("unlocked by a connection with a bind")
	}
	want(false, "still locked")
	if len(waited) != 2 || waited[0] != firstWait || waited[1] != 2*firstWait {
		t.Errorf("waited %v", waited)
	}
	if !a.dial(t).unlocks("planted") {
		t.Fatal("not unlocked")
	}
	want(true, "unlocked")
	if !other.locks("third") || !other.unlocks("third") || len(waited) != 3 {
		t.Errorf("the right passphrase did not end the wait: %v", waited)
	}
	if strings.Contains(a.log.String(), "planted") {
		t.Error("a passphrase is in the log")
	}
}

func TestBackOff(t *testing.T) {
	last := time.Duration(0)
	for wrong := 1; wrong < 200; wrong++ {
		d := backOff(wrong)
		if d < last || d < firstWait || d > maxWait {
			t.Fatalf("%v after %d attempts", d, wrong)
		}
		last = d
	}
	if last != maxWait {
		t.Errorf("at last %v", last)
	}
}

// TestIdleLock: the agent locks itself when nothing was signed for a while; lists do not
// count.
func TestIdleLock(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	now := &clock{now: time.Now()}
	passphrase := []byte("the passphrase")
	a := f.start(t, func(c *Config) { c.Now, c.IdleLock, c.Passphrase = now.Now, 10*time.Minute, slices.Clone(passphrase) })
	c, bound := a.dial(t), a.dial(t)
	bound.bind(host, "s1", 0)
	sign := func() bool { return bound.sign(key, login("s1", key, nil).data(), 0) }
	now.advance(9 * time.Minute)
	if !sign() {
		t.Error("locked too early")
	}
	now.advance(9 * time.Minute)
	if len(bound.list()) != 1 {
		t.Error("a signature did not put it off")
	}
	now.advance(time.Minute)
	if len(bound.list()) != 0 || sign() {
		t.Error("not locked")
	}
	if c.unlocks("wrong") || !c.unlocks(string(passphrase)) || !sign() {
		t.Error("the passphrase does not decide")
	}
	// A lock by a client has a passphrase of its own, and the idle one stays.
	if !c.locks("another") || c.unlocks(string(passphrase)) || !c.unlocks("another") || !sign() {
		t.Error("a lock with a passphrase of its own")
	}
	if !c.locks("another") {
		t.Error("not locked")
	}
	now.advance(10 * time.Minute)
	if c.unlocks(string(passphrase)) || !c.unlocks("another") || !sign() {
		t.Error("idle while it was locked: it needs another passphrase now")
	}
	now.advance(10 * time.Minute)
	if sign() || c.unlocks("another") || !c.unlocks(string(passphrase)) || !sign() {
		t.Error("the second idle lock")
	}
	if _, err := New(Config{Registry: Lend(f.Registry), IdleLock: time.Minute}); err == nil {
		t.Error("an idle lock that nobody could unlock")
	}
}

// TestLockedMeanwhile: a signature that was made while the agent was locked does not leave,
// and its key is not kept.
func TestLockedMeanwhile(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	var s *Server
	a := f.start(t, func(c *Config) {
		c.Registry = func(ctx context.Context, use func(*registry.Registry) error) error {
			defer func() { check(t, s.lock.close(ctx, []byte("planted"))) }()
			return use(f.Registry)
		}
	})
	s = a.Server
	c := a.dial(t)
	c.bind(host, "s1", 0)
	if c.sign(key, login("s1", key, nil).data(), 0) || len(f.signed(t)) != 1 || s.keys.Len() != 0 {
		t.Errorf("a signature left a locked agent, or %d rows, %d keys", len(f.signed(t)), s.keys.Len())
	}
}
