package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fleet is a registry for a test.
type fleet struct {
	*registry.Registry
}

func newFleet(t testing.TB) fleet {
	t.Helper()
	return fleet{registry.New(vaulttest.New(t))}
}

// addNode adds a node with its pins.
func (f fleet) addNode(t testing.TB, name string, pins ...ssh.PublicKey) {
	t.Helper()
	check(t, f.CreateNode(t.Context(), registry.Node{
		Name: name, SSHHost: "127.0.0.1", SSHPort: 22, SSHUser: "ops",
		GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee",
	}))
	for _, pin := range pins {
		_, err := f.TrustHostKey(t.Context(), name, pin)
		check(t, err)
	}
}

// addKey makes an ed25519 key that the nodes use.
func (f fleet) addKey(t testing.TB, comment string, nodes ...string) ssh.PublicKey {
	t.Helper()
	key, err := f.GenerateSSHKey(t.Context(), "ed25519", comment, nodes...)
	check(t, err)
	return publicKey(t, key.PublicKey)
}

// addRSAKey stores the RSA key of 3072 bits of all tests.
func (f fleet) addRSAKey(t testing.TB, comment string, nodes ...string) ssh.PublicKey {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(rsaKey(), comment)
	check(t, err)
	k, err := registry.ParsePrivateKey(t.Context(), pem.EncodeToMemory(block), registry.PrivateKeyOptions{})
	check(t, err)
	defer k.Wipe()
	key, err := f.AddSSHKey(t.Context(), k, nodes...)
	check(t, err)
	return publicKey(t, key.PublicKey)
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		panic(err)
	}
	return k
})

// signed returns the details of the audit rows of signatures.
func (f fleet) signed(t testing.TB) (details []string) {
	t.Helper()
	for _, row := range f.auditedSignatures(t) {
		details = append(details, row.Detail)
	}
	return details
}

// signatureRows returns how many audit rows of signatures there are, and of how many
// instants: a transaction has one.
func (f fleet) signatureRows(t testing.TB) (rows, instants int) {
	t.Helper()
	at := map[time.Time]bool{}
	list := f.auditedSignatures(t)
	for _, row := range list {
		at[row.At] = true
	}
	return len(list), len(at)
}

func (f fleet) auditedSignatures(t testing.TB) (rows []vault.AuditRow) {
	t.Helper()
	check(t, f.Vault().View(t.Context(), func(tx *vault.Tx) error {
		for row, err := range tx.AuditRows(t.Context(), 1) {
			if err != nil {
				return err
			}
			if row.Action == string(registry.ActionSignSSHKey) {
				rows = append(rows, row)
			}
		}
		return nil
	}))
	return rows
}

func publicKey(t testing.TB, line string) ssh.PublicKey {
	t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	check(t, err)
	return key
}

// newSigner returns a key of a host, or of somebody that the vault does not know.
func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	s, err := ssh.NewSignerFromKey(private)
	check(t, err)
	return s
}

// running is an agent that serves at a socket.
type running struct {
	*Server
	socket string
	log    *logBuffer
	stop   func() // waits until Serve has returned
}

// start serves the registry until the end of the test. configure may be nil.
func (f fleet) start(t testing.TB, configure func(*Config)) running {
	t.Helper()
	log := &logBuffer{}
	cfg := Config{Registry: Lend(f.Registry), Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if configure != nil {
		configure(&cfg)
	}
	s, err := New(cfg)
	check(t, err)
	socket := filepath.Join(shortDir(t), "agent")
	l, err := unixsocket.Listen(socket)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve returned %v", err)
		}
	})
	t.Cleanup(stop)
	return running{s, socket, log, stop}
}

// shortDir returns a directory of 0700 whose name is short enough for a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// client speaks with an agent at the wire.
type client struct {
	t    testing.TB
	conn net.Conn
}

func (a running) dial(t testing.TB) client {
	t.Helper()
	conn, err := net.Dial("unix", a.socket)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return client{t, conn}
}

func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

// ask returns the answer to a message.
func (c client) ask(message []byte) []byte {
	c.t.Helper()
	_, err := c.conn.Write(frame(message))
	check(c.t, err)
	var head [4]byte
	_, err = io.ReadFull(c.conn, head[:])
	check(c.t, err)
	answer := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err = io.ReadFull(c.conn, answer)
	check(c.t, err)
	return answer
}

// succeeds reports whether the answer is success; anything but that and failure fails the
// test.
func (c client) succeeds(message []byte) bool {
	c.t.Helper()
	answer := c.ask(message)
	switch {
	case bytes.Equal(answer, []byte{msgSuccess}):
		return true
	case bytes.Equal(answer, []byte{msgFailure}):
		return false
	}
	c.t.Fatalf("an answer of type %d and %d bytes", answer[0], len(answer))
	return false
}

func extension(name string, contents []byte) []byte {
	return ssh.Marshal(extensionRequest{name, contents})
}

// bindMessage binds to a host whose key blob is given, with a signature by host.
func bindMessage(t testing.TB, blob []byte, host ssh.Signer, session string, forwarding byte) []byte {
	t.Helper()
	sig, err := host.Sign(rand.Reader, []byte(session))
	check(t, err)
	return extension(extensionBind, ssh.Marshal(bindRequest{blob, []byte(session), ssh.Marshal(sig), forwarding}))
}

// bind binds to a host.
func (c client) bind(host ssh.Signer, session string, forwarding byte) bool {
	c.t.Helper()
	return c.succeeds(bindMessage(c.t, host.PublicKey().Marshal(), host, session, forwarding))
}

// list returns the comments of the keys that are listed.
func (c client) list() []string {
	c.t.Helper()
	answer := c.ask([]byte{msgRequestIdentities})
	var head struct {
		N    uint32 `sshtype:"12"`
		Rest []byte `ssh:"rest"`
	}
	check(c.t, ssh.Unmarshal(answer, &head))
	comments := []string{}
	for range head.N {
		var i struct {
			Key     []byte
			Comment string
			Rest    []byte `ssh:"rest"`
		}
		check(c.t, ssh.Unmarshal(head.Rest, &i))
		_, err := ssh.ParsePublicKey(i.Key)
		check(c.t, err)
		comments, head.Rest = append(comments, i.Comment), i.Rest
	}
	if len(head.Rest) > 0 {
		c.t.Fatal("bytes behind the list of keys")
	}
	return comments
}

// sign asks for a signature and verifies it. It reports false for a failure.
func (c client) sign(key ssh.PublicKey, data []byte, flags uint32) bool {
	c.t.Helper()
	answer := c.ask(ssh.Marshal(signRequest{key.Marshal(), data, flags}))
	if bytes.Equal(answer, []byte{msgFailure}) {
		return false
	}
	var r signResponse
	check(c.t, ssh.Unmarshal(answer, &r))
	var s signatureBlob
	check(c.t, ssh.Unmarshal(r.Signature, &s))
	check(c.t, key.Verify(data, &ssh.Signature{Format: s.Format, Blob: s.Blob}))
	return true
}

// login is the data of a login, which a test may change before it is marshaled.
func login(session string, key ssh.PublicKey, hostKey []byte) userauth {
	u := userauth{
		SessionID: []byte(session), Message: msgUserauthRequest, User: "ops", Service: serviceConnection,
		Method: methodPublicKey, Signed: 1, Algorithm: key.Type(), Key: key.Marshal(),
	}
	if key.Type() == ssh.KeyAlgoRSA {
		u.Algorithm = ssh.KeyAlgoRSASHA512
	}
	if hostKey != nil {
		u.Method, u.Rest = methodHostBound, ssh.Marshal(hostBound{hostKey})
	}
	return u
}

func (u userauth) with(change func(*userauth)) []byte {
	change(&u)
	return ssh.Marshal(u)
}

func (u userauth) data() []byte { return ssh.Marshal(u) }
