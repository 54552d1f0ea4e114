package hive_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// jump has a node jump through another.
func (f fleet) jump(t testing.TB, name, through string) {
	t.Helper()
	err := f.UpdateNode(t.Context(), name, func(n *registry.Node) error {
		n.ProxyJump = through
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// logins counts the logins that a server has logged.
func logins(s sshdtest.Server) int { return strings.Count(s.Log(), "Accepted publickey") }

// wantLogins compares the logins of two servers. sshd logs one only after it has told the client.
func wantLogins(t *testing.T, a, b sshdtest.Server, wantA, wantB int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); (logins(a) < wantA || logins(b) < wantB) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if logins(a) != wantA || logins(b) != wantB {
		t.Errorf("%d and %d logins, want %d and %d\n%s\n%s", logins(a), logins(b), wantA, wantB, a.Log(), b.Log())
	}
}

// TestJump: a node is reached through the others that it names, the outermost first, each
// with its own pins; an error names the one that failed.
func TestJump(t *testing.T) {
	f := newFleet(t)
	a := sshdtest.Start(t, f.authorized, "LogLevel VERBOSE")
	b := sshdtest.Start(t, f.authorized, "LogLevel VERBOSE")
	closed := sshdtest.Start(t, f.authorized, "AllowTcpForwarding no")
	f.addServer(t, "a", a, ssh.KeyAlgoED25519)
	f.addServer(t, "b", b, ssh.KeyAlgoRSA)
	f.jump(t, "b", "a")
	d := f.dialer()

	conn, err := d.Dial(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	session, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.Output("echo $SSH_CONNECTION"); err != nil || !strings.Contains(string(out), b.Port) {
		t.Errorf("%s, %v", out, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	wantLogins(t, a, b, 1, 1)

	// Two jumps: through a, then b, to a again by another name.
	f.addServer(t, "c", a, ssh.KeyAlgoED25519)
	f.jump(t, "c", "b")
	if r := probe(t, d, "c"); r.Outcome != hive.Online || r.At != "c" {
		t.Errorf("%+v", r)
	}
	wantLogins(t, a, b, 3, 2)

	// The jump shows another key: nothing goes to the node behind it.
	f.add(t, "changed", a.Host, a.Port, a.User, otherKey(t))
	f.addServer(t, "behind", b, ssh.KeyAlgoED25519)
	f.jump(t, "behind", "changed")
	conn, err = d.Dial(t.Context(), "behind")
	conn.Close() // nil, we hope; sshd ends when nobody is connected
	if at, ok := errors.AsType[*hive.Error](err); !ok || at.Node != "changed" || !errors.Is(err, hive.ErrHostKeyChanged) {
		t.Errorf("%v, want a changed host key of the jump", err)
	}
	if r := probe(t, d, "behind"); r.Outcome != hive.HostKeyChanged || r.At != "changed" || r.Node != "behind" || r.Key == nil {
		t.Errorf("%+v", r)
	}
	if _, err := d.HostKeys(t.Context(), "behind"); !errors.Is(err, hive.ErrHostKeyChanged) {
		t.Errorf("host keys: %v, want a changed host key of the jump", err)
	}
	wantLogins(t, a, b, 3, 2)

	// The node itself shows another key.
	f.add(t, "other", b.Host, b.Port, b.User, otherKey(t))
	f.jump(t, "other", "a")
	if r := probe(t, d, "other"); r.Outcome != hive.HostKeyChanged || r.At != "other" {
		t.Errorf("%+v", r)
	}
	wantLogins(t, a, b, 4, 2)

	// The jump does not forward.
	f.addServer(t, "closed", closed, ssh.KeyAlgoED25519)
	f.addServer(t, "shut-in", b, ssh.KeyAlgoED25519)
	f.jump(t, "shut-in", "closed")
	if r := probe(t, d, "shut-in"); r.Outcome != hive.ProtocolFailure || r.At != "shut-in" || !strings.Contains(r.Err.Error(), "does not forward") {
		t.Errorf("%+v", r)
	}
	wantLogins(t, a, b, 4, 2)
}

// TestHostKeysThroughJump: the keys of a node that nobody pinned yet are fetched through
// its jump, which logs us in; the node does not.
func TestHostKeysThroughJump(t *testing.T) {
	f := newFleet(t)
	a := sshdtest.Start(t, f.authorized, "LogLevel VERBOSE")
	b := sshdtest.Start(t, f.authorized, "LogLevel VERBOSE")
	f.addServer(t, "a", a, ssh.KeyAlgoED25519)
	f.addServer(t, "b", b)
	f.jump(t, "b", "a")
	keys, err := f.dialer().HostKeys(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]bool{}, map[string]bool{}
	for _, key := range keys {
		got[ssh.FingerprintSHA256(key)] = true
	}
	for _, key := range hostKeys(t, b) {
		want[ssh.FingerprintSHA256(key)] = true
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	wantLogins(t, a, b, 1, 0)
}

// TestJumpLoop: rows that the registry does not write lead nowhere, and not for ever.
func TestJumpLoop(t *testing.T) {
	f := newFleet(t)
	a := sshdtest.Start(t, f.authorized)
	exec := func(query string, args ...any) {
		t.Helper()
		err := f.Vault().Update(t.Context(), func(tx *vault.Tx) error {
			if _, err := tx.ExecContext(t.Context(), query, args...); err != nil {
				return err
			}
			return tx.Audit(t.Context(), vault.Event{Action: vault.Action("test")})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	f.addServer(t, "n0", a, ssh.KeyAlgoED25519)
	for n := range registry.MaxJumps + 1 {
		name, through := fmt.Sprint("n", n+1), fmt.Sprint("n", n)
		f.addServer(t, name, a, ssh.KeyAlgoED25519)
		exec(`INSERT INTO node_details (node_name, proxy_jump) VALUES (?, ?)`, name, through)
	}
	d := f.dialer()
	if r := probe(t, d, "n8"); r.Outcome != hive.Online {
		t.Errorf("eight jumps: %+v", r)
	}
	for _, name := range []string{"n9", "n2"} {
		conn, err := d.Dial(t.Context(), name)
		conn.Close()
		if at, ok := errors.AsType[*hive.Error](err); !ok || at.Node != name || !errors.Is(err, hive.ErrJumpLoop) {
			t.Errorf("%s: %v, want ErrJumpLoop", name, err)
		}
		if r := probe(t, d, name); r.Outcome != hive.JumpLoop || r.At != name || r.Outcome.Status() != registry.StatusError {
			t.Errorf("probe of %s: %+v, want a jump loop", name, r)
		}
		exec(`INSERT INTO node_details (node_name, proxy_jump) VALUES ('n0', 'n3') ON CONFLICT DO NOTHING`)
	}
}
