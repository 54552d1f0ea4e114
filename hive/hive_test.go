package hive_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

func probe(t *testing.T, d *hive.Dialer, name string) hive.Result {
	t.Helper()
	r, err := d.Probe(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return r
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closedHost, closedPort, _ := net.SplitHostPort(l.Addr().String())
	l.Close()

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
	if log := server.Log(); strings.Contains(log, "Failed") || !strings.Contains(log, "Accepted publickey") {
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

func TestDiscover(t *testing.T) {
	f := newFleet(t)
	for name, row := range map[string]struct {
		options []string
		ok      bool
	}{
		"plain":      {nil, true},
		"noise":      {[]string{`ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"`}, true},
		"no shell":   {[]string{"ForceCommand echo no"}, false},
		"cut":        {[]string{"ForceCommand echo rbee-discover 1"}, false},
		"never ends": {[]string{"ForceCommand yes"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := sshdtest.Start(t, f.authorized, row.options...)
			node := strings.ReplaceAll(name, " ", "-")
			f.addServer(t, node, server, ssh.KeyAlgoED25519)
			conn, err := f.dialer().Dial(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			m, err := conn.Discover(t.Context())
			if !row.ok {
				if !errors.Is(err, hive.ErrDiscovery) {
					t.Errorf("%v, want ErrDiscovery", err)
				}
				return
			}
			backends, devices := m.Backends()
			if err != nil || !strings.HasPrefix(m.OS, "Linux ") || m.CPUs == 0 || m.Memory == 0 || m.Disk == 0 || len(backends) == 0 || devices["cpu"] != 1 {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// run dials the node and runs a command there.
func run(ctx context.Context, t *testing.T, f fleet, node, command string) (hive.Exit, string, string, error) {
	t.Helper()
	conn, err := f.dialer().Dial(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var stdout, stderr bytes.Buffer
	exit, err := conn.Run(ctx, command, &stdout, &stderr)
	return exit, stdout.String(), stderr.String(), err
}

func TestRun(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "hive-01", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	exit, stdout, stderr, err := run(t.Context(), t, f, "hive-01", "echo out; echo err >&2; cat; exit 3")
	if err != nil || exit != (hive.Exit{Status: 3}) || stdout != "out\n" || stderr != "err\n" {
		t.Errorf("%+v, %q, %q, %v", exit, stdout, stderr, err)
	}
	if exit, _, _, err = run(t.Context(), t, f, "hive-01", "kill -KILL $$"); err != nil || exit.Signal != "KILL" || exit.Status == 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// serveSSH is an SSH server in the process, for what sshd does not do for root: it tells
// a command of a signal. exec gets the command, and a channel of the signals; it returns
// the exit status.
func serveSSH(t *testing.T, exec func(out io.Writer, signals <-chan string) uint32) (host, port string, key ssh.PublicKey) {
	t.Helper()
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
		_, channels, requests, err := ssh.NewServerConn(conn, config)
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
	return host, port, signer.PublicKey()
}

// started is a writer that closes a channel with the first byte.
type started chan struct{}

func (s started) Write(p []byte) (int, error) {
	select {
	case <-s:
	default:
		close(s)
	}
	return len(p), nil
}

// TestRunInterrupted: a command gets the chance to end, and one that does not take it may
// have done anything.
func TestRunInterrupted(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "goes-on", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	host, port, key := serveSSH(t, func(out io.Writer, signals <-chan string) uint32 {
		io.WriteString(out, "on")
		if <-signals == "INT" {
			return 7
		}
		return 1
	})
	f.add(t, "ends", host, port, "ops", key)
	for _, row := range []struct {
		node    string
		unknown bool
		status  int
	}{
		{"ends", false, 7},
		{"goes-on", true, 0},
	} {
		t.Run(row.node, func(t *testing.T) {
			conn, err := f.dialer().Dial(t.Context(), row.node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithCancel(t.Context())
			on := make(started)
			go func() {
				<-on
				cancel()
			}()
			exit, err := conn.Run(ctx, `trap '' INT; echo on; while :; do sleep 0.1; done`, on, io.Discard)
			if !errors.Is(err, context.Canceled) || errors.Is(err, hive.ErrUnknownOutcome) != row.unknown || exit.Status != row.status {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

// TestRunCut: the connection is gone while the command runs.
func TestRunCut(t *testing.T) {
	f := newFleet(t)
	f.addServer(t, "hive-01", sshdtest.Start(t, f.authorized), ssh.KeyAlgoED25519)
	if _, _, _, err := run(t.Context(), t, f, "hive-01", "kill -KILL $PPID; sleep 100"); !errors.Is(err, hive.ErrUnknownOutcome) {
		t.Errorf("%v, want ErrUnknownOutcome", err)
	}
}

// TestAuthorize adds a key to a user's authorized_keys, in every state in which that can be.
func TestAuthorize(t *testing.T) {
	f := newFleet(t)
	other := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t))))
	line := string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(otherKey(t)))) + " rbee@hive-01"
	blob := strings.Fields(line)[1]
	for _, row := range []struct {
		name   string
		before func(t *testing.T, ssh string) // makes ~/.ssh what it is
		added  bool
		fails  string
		want   string // of authorized_keys
		mode   os.FileMode
	}{
		{"no directory", func(*testing.T, string) {}, true, "", line + "\n", 0o600},
		{"no file", func(t *testing.T, dir string) { os.Mkdir(dir, 0o700) }, true, "", line + "\n", 0o600},
		{"another key", func(t *testing.T, dir string) { keysFile(t, dir, other+"\n", 0o640) }, true, "", other + "\n" + line + "\n", 0o640},
		{"no final newline", func(t *testing.T, dir string) { keysFile(t, dir, other, 0o600) }, true, "", other + "\n" + line + "\n", 0o600},
		{"there", func(t *testing.T, dir string) { keysFile(t, dir, "restrict ssh-ed25519 "+blob+" x", 0o600) }, false, "", "restrict ssh-ed25519 " + blob + " x", 0o600},
		{"commented out", func(t *testing.T, dir string) { keysFile(t, dir, "# "+line+"\n", 0o600) }, true, "", "# " + line + "\n" + line + "\n", 0o600},
		{"a link", func(t *testing.T, dir string) {
			keysFile(t, dir, other+"\n", 0o600)
			os.Rename(filepath.Join(dir, "authorized_keys"), filepath.Join(dir, "keys"))
			os.Symlink("keys", filepath.Join(dir, "authorized_keys"))
		}, true, "", other + "\n" + line + "\n", 0o600},
		{"a directory", func(t *testing.T, dir string) { os.MkdirAll(filepath.Join(dir, "authorized_keys"), 0o700) }, false, "not a regular file", "", 0},
		{"another's", func(t *testing.T, dir string) {
			keysFile(t, dir, other+"\n", 0o600)
			if os.Chown(filepath.Join(dir, "authorized_keys"), 1, 1) != nil {
				t.Skip("only root can give a file away")
			}
		}, false, "belongs to another user", other + "\n", 0o600},
	} {
		t.Run(row.name, func(t *testing.T) {
			home := t.TempDir()
			row.before(t, filepath.Join(home, ".ssh"))
			server := sshdtest.Start(t, f.authorized, "SetEnv HOME="+home)
			node := strings.NewReplacer(" ", "-", "'", "").Replace(row.name)
			f.addServer(t, node, server, ssh.KeyAlgoED25519)
			conn, err := f.dialer().Dial(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			added, err := conn.Authorize(t.Context(), line)
			if row.fails != "" {
				if !errors.Is(err, hive.ErrNotAuthorized) || !strings.Contains(err.Error(), row.fails) {
					t.Errorf("%v, want %q", err, row.fails)
				}
			} else if err != nil || added != row.added {
				t.Errorf("%v, %v", added, err)
			}
			path := filepath.Join(home, ".ssh", "authorized_keys")
			info, err := os.Stat(path)
			if err == nil && row.mode != 0 && info.Mode() != row.mode {
				t.Errorf("mode %v", info.Mode())
			}
			if got, _ := os.ReadFile(path); string(got) != row.want {
				t.Errorf("authorized_keys:\n%s\nwant:\n%s", got, row.want)
			}
			entries, _ := os.ReadDir(filepath.Join(home, ".ssh"))
			for _, e := range entries {
				if strings.Contains(e.Name(), "authorized_keys.") {
					t.Errorf("%s is left behind", e.Name())
				}
			}
			if row.fails == "" { // again
				if again, err := conn.Authorize(t.Context(), line); err != nil || again {
					t.Errorf("again: %v, %v", again, err)
				}
			}
		})
	}
	for name, force := range map[string]string{"no-shell": "ForceCommand echo no", "cut": "ForceCommand echo rbee-authorize 1"} {
		server := sshdtest.Start(t, f.authorized, force)
		f.addServer(t, name, server, ssh.KeyAlgoED25519)
		conn, err := f.dialer().Dial(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Authorize(t.Context(), line); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func keysFile(t *testing.T, dir, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(dir, "authorized_keys")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
