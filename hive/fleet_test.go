package hive_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// fleet is a registry whose nodes all use one key of the vault.
type fleet struct {
	*registry.Registry
	authorized string // line of the key
}

func newFleet(t testing.TB) fleet {
	t.Helper()
	r := registry.New(vaulttest.New(t))
	key, err := r.GenerateSSHKey(t.Context(), "ed25519", "")
	if err != nil {
		t.Fatal(err)
	}
	return fleet{r, key.PublicKey}
}

// add adds a node that uses the key, with pins.
func (f fleet) add(t testing.TB, name, host, port, user string, pins ...ssh.PublicKey) {
	t.Helper()
	f.addWithoutKey(t, name, host, port, user, pins...)
	keys, err := f.ListSSHKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.AssignSSHKey(t.Context(), keys[0].Fingerprint, name); err != nil {
		t.Fatal(err)
	}
}

func (f fleet) addWithoutKey(t testing.TB, name, host, port, user string, pins ...ssh.PublicKey) {
	t.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	err = f.CreateNode(t.Context(), registry.Node{
		Name: name, SSHHost: host, SSHPort: uint16(n), SSHUser: user,
		GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		if _, err := f.TrustHostKey(t.Context(), name, pin); err != nil {
			t.Fatal(err)
		}
	}
}

// addMany adds nodes of one address, hive-0 and so on, that use the key.
func (f fleet) addMany(t testing.TB, nodes int, host, port string, pin ssh.PublicKey) {
	t.Helper()
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	var set registry.ImportSet
	var names []string
	pins := map[string][]ssh.PublicKey{}
	for i := range nodes {
		name := fmt.Sprint("hive-", i)
		names = append(names, name)
		pins[name] = []ssh.PublicKey{pin}
		set.Nodes = append(set.Nodes, registry.Node{
			Name: name, SSHHost: host, SSHPort: uint16(n), SSHUser: "ops",
			GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee",
		})
	}
	if _, err := f.Import(t.Context(), set, registry.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	keys, err := f.ListSSHKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.AssignSSHKey(t.Context(), keys[0].Fingerprint, names...); err != nil {
		t.Fatal(err)
	}
	if _, err := f.TrustHostKeys(t.Context(), pins); err != nil {
		t.Fatal(err)
	}
}

// addServer adds a node for an sshd, with its host keys of the types pinned.
func (f fleet) addServer(t testing.TB, name string, s sshdtest.Server, types ...string) {
	t.Helper()
	var pins []ssh.PublicKey
	for _, key := range hostKeys(t, s) {
		for _, want := range types {
			if key.Type() == want {
				pins = append(pins, key)
			}
		}
	}
	f.add(t, name, s.Host, s.Port, s.User, pins...)
}

func hostKeys(t testing.TB, s sshdtest.Server) (keys []ssh.PublicKey) {
	t.Helper()
	for _, path := range s.PublicFiles {
		line, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func (f fleet) dialer() *hive.Dialer {
	return &hive.Dialer{Registry: f.Registry, Timeout: 20 * time.Second}
}

// serve accepts connections on loopback and hands each to do, with its number from 1,
// until the test is over.
func serve(t testing.TB, do func(conn net.Conn, n int)) (host, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { conn.Close() })
			wg.Go(func() {
				defer conn.Close()
				do(conn, n)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	host, port, _ = net.SplitHostPort(l.Addr().String())
	return host, port
}

// forward is a relay to an sshd.
func forward(conn net.Conn, s sshdtest.Server) {
	to, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(to, conn)
		to.Close()
	}()
	io.Copy(conn, to)
}

func otherKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecdsaKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serveSSH is an SSH server in the process, for what sshd does not do for root: it tells
// a command of a signal. exec gets the command, and a channel of the signals; it returns
// the exit status. read counts the bytes that the server reads.
func serveSSH(t *testing.T, exec func(out io.Writer, signals <-chan string) uint32) (host, port string, key ssh.PublicKey, read *atomic.Int64) {
	t.Helper()
	read = &atomic.Int64{}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(signer)
	host, port = serve(t, func(conn net.Conn, _ int) {
		_, channels, requests, err := ssh.NewServerConn(countedConn{conn, read}, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				return
			}
			signals := make(chan string, 1)
			for r := range requests {
				switch r.Type {
				case "exec":
					r.Reply(true, nil)
					go func() {
						status := exec(channel, signals)
						channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
						channel.Close()
					}()
				case "signal":
					var sent struct{ Name string }
					if ssh.Unmarshal(r.Payload, &sent) == nil {
						signals <- sent.Name
					}
				}
			}
		}
	})
	return host, port, signer.PublicKey(), read
}
