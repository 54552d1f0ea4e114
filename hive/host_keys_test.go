package hive_test

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// TestHostKeysBusy: a server that has too many logins under way is asked again, and the jump
// to it too. One that stays busy is reported as that.
func TestHostKeysBusy(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, f.authorized)
	busyAtFirst := func(conn net.Conn, n int) {
		if n > 1 {
			forward(conn, server)
		}
	}
	host, port := serve(t, busyAtFirst)
	f.add(t, "hive-01", host, port, server.User)
	jump, jumpPort := serve(t, busyAtFirst)
	f.add(t, "hive-02", jump, jumpPort, server.User, hostKeys(t, server)...)
	f.addServer(t, "hive-03", server)
	if err := f.UpdateNode(t.Context(), "hive-03", func(n *registry.Node) error { n.ProxyJump = "hive-02"; return nil }); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hive-01", "hive-03"} {
		if keys, err := f.dialer().HostKeys(t.Context(), name); err != nil || len(keys) != len(hostKeys(t, server)) {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
		}
	}
	busy, busyPort := serve(t, func(net.Conn, int) {})
	f.add(t, "hive-04", busy, busyPort, server.User)
	if _, err := f.dialer().HostKeys(t.Context(), "hive-04"); !errors.Is(err, hive.ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
}

func TestHostKeys(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, "")
	f.addServer(t, "hive-01", server)
	got, err := f.dialer().HostKeys(t.Context(), "hive-01")
	if err != nil {
		t.Fatal(err)
	}
	want := hostKeys(t, server)
	if len(got) != len(want) {
		t.Fatalf("%d keys, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Marshal(), want[i].Marshal()) {
			t.Errorf("key %d is %s", i, ssh.FingerprintSHA256(got[i]))
		}
	}
}
