package agent

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func pid() int { return os.Getpid() }

// executable is the file that this test runs.
func executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	check(t, err)
	return path
}

type lockMessage struct {
	Passphrase []byte `sshtype:"22"`
}

type unlockMessage struct {
	Passphrase []byte `sshtype:"23"`
}

// rsaHost is a host with the RSA key of all tests.
func rsaHost(t testing.TB) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(rsaKey())
	check(t, err)
	return s
}

// rsaSHA2 signs as a server does that negotiated rsa-sha2-512.
type rsaSHA2 struct{ ssh.Signer }

func (s rsaSHA2) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.Signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand, data, ssh.KeyAlgoRSASHA512)
}

func fileData(namespace string) sshsig {
	s := sshsig{Namespace: namespace, Hash: "sha512", Digest: make([]byte, 64)}
	copy(s.Magic[:], sshsigMagic)
	return s
}

func (s sshsig) data() []byte { return ssh.Marshal(s) }

func (s sshsig) with(change func(*sshsig)) []byte {
	change(&s)
	return ssh.Marshal(s)
}

// TestRefusedRequests: whatever an agent need not do is answered with failure, and the
// connection goes on.
func TestRefusedRequests(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "a", "hive-01")
	a := f.start(t, nil)
	c := a.dial(t)
	c.bind(host, "s1", 0)
	const planted = "planted secret"
	for name, message := range map[string][]byte{
		"version 1 list":       {1},
		"add":                  append([]byte{17}, planted...),
		"add constrained":      append([]byte{25}, planted...),
		"remove":               {18, 0, 0, 0, 0},
		"remove all":           {19},
		"remove all version 1": {9},
		"add smartcard":        append([]byte{20}, planted...),
		"add smartcard 2":      append([]byte{26}, planted...),
		"remove smartcard":     append([]byte{21}, planted...),
		"unknown":              {200},
		"success":              {msgSuccess},
		"large":                append([]byte{17}, make([]byte, maxMessage-1)...),
		"list with more":       {msgRequestIdentities, 0},
		"sign nothing":         {msgSignRequest},
		"sign without a key":   ssh.Marshal(signRequest{nil, login("s1", key, nil).data(), 0}),
		"sign with more":       append(ssh.Marshal(signRequest{key.Marshal(), login("s1", key, nil).data(), 0}), 0),
		"lock malformed":       {msgLock, 0},
		"extension malformed":  {msgExtension, 0, 0, 0, 9},
		"query":                extension("query", nil),
		"unknown extension":    extension("restrict-destination-v00@openssh.com", []byte(planted)),
		"empty extension":      extension("", nil),
	} {
		if c.succeeds(message) {
			t.Errorf("%s: success", name)
		}
	}
	if list := c.list(); len(list) != 1 || !c.sign(key, login("s1", key, nil).data(), 0) {
		t.Errorf("the connection did not go on: %q", list)
	}
	if log := a.log.String(); strings.Contains(log, planted) || !strings.Contains(log, "peer=") {
		t.Errorf("the log has a secret, or no peer: %s", log)
	}
}

// TestFraming: what has no valid length ends the connection, and that one alone.
func TestFraming(t *testing.T) {
	f := newFleet(t)
	a := f.start(t, nil)
	for name, data := range map[string][]byte{
		"empty":     {0, 0, 0, 0},
		"too large": binary.BigEndian.AppendUint32(nil, maxMessage+1),
		"largest":   {255, 255, 255, 255},
	} {
		kept := &keepingConn{script: script{in: bytes.NewReader(data)}}
		(&connection{server: a.Server}).serve(t.Context(), kept)
		if len(kept.kept) != 1 {
			t.Errorf("%s: read on behind the length", name)
		}
		c := a.dial(t)
		_, err := c.conn.Write(data)
		check(t, err)
		if rest, err := io.ReadAll(c.conn); err != nil || len(rest) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(rest), err)
		}
	}
	a.dial(t).list()
}

// TestLogin is about the data that is signed on a bound connection.
func TestLogin(t *testing.T) {
	f := newFleet(t)
	host, other := newSigner(t), newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	f.addNode(t, "hive-03", other.PublicKey())
	key := f.addKey(t, "a", "hive-01", "hive-03")
	f.addNode(t, "hive-02", host.PublicKey())
	second := f.addKey(t, "b", "hive-02")
	a := f.start(t, func(c *Config) { c.AllowUnbound = []string{ssh.FingerprintSHA256(key)} })
	c := a.dial(t)
	c.bind(host, "s1", 0)
	plain, bound := login("s1", key, nil), login("s1", key, host.PublicKey().Marshal())
	for _, row := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"plain", plain.data(), true},
		{"host bound", bound.data(), true},
		{"longest user", plain.with(func(u *userauth) { u.User = strings.Repeat("u", maxName) }), true},
		{"user too long", plain.with(func(u *userauth) { u.User = strings.Repeat("u", maxName+1) }), false},
		{"another session", login("s2", key, nil).data(), false},
		{"no session", login("", key, nil).data(), false},
		{"another key in it", login("s1", second, nil).data(), false},
		{"no key in it", plain.with(func(u *userauth) { u.Key = nil }), false},
		{"another host key in it", login("s1", key, other.PublicKey().Marshal()).data(), false},
		{"empty host key in it", login("s1", key, []byte{}).data(), false},
		{"no host key in it", bound.with(func(u *userauth) { u.Rest = nil }), false},
		{"bytes behind the host key", append(bound.data(), 0), false},
		{"bytes behind", append(plain.data(), 0), false},
		{"host key behind the plain method", bound.with(func(u *userauth) { u.Method = methodPublicKey }), false},
		{"another method", plain.with(func(u *userauth) { u.Method = "hostbased" }), false},
		{"another service", plain.with(func(u *userauth) { u.Service = "ssh-userauth" }), false},
		{"another message", plain.with(func(u *userauth) { u.Message = 51 }), false},
		{"not to be signed", plain.with(func(u *userauth) { u.Signed = 0 }), false},
		{"a flag that is none", plain.with(func(u *userauth) { u.Signed = 255 }), false},
		{"another algorithm", plain.with(func(u *userauth) { u.Algorithm = ssh.KeyAlgoRSASHA512 }), false},
		{"cut", plain.data()[:20], false},
		{"a file", fileData("git").data(), false},
		{"no data", nil, false},
	} {
		if ok := c.sign(key, row.data, 0); ok != row.ok {
			t.Errorf("%s: signed %t", row.name, ok)
		}
	}
	if c.sign(key, plain.data(), flagRSASHA512) {
		t.Error("signed with a flag of RSA")
	}
	if c.sign(newSigner(t).PublicKey(), plain.data(), 0) {
		t.Error("signed with a key that is not here")
	}
}

// TestRSAFlags: RSA signs with SHA-2, by the algorithm that the login names.
func TestRSAFlags(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addRSAKey(t, "a", "hive-01")
	c := f.start(t, nil).dial(t)
	c.bind(host, "s1", 0)
	for _, row := range []struct {
		flags     uint32
		algorithm string
		ok        bool
	}{
		{flagRSASHA256, ssh.KeyAlgoRSASHA256, true},
		{flagRSASHA512, ssh.KeyAlgoRSASHA512, true},
		{flagRSASHA256, ssh.KeyAlgoRSASHA512, false},
		{0, ssh.KeyAlgoRSA, false},
		{0, ssh.KeyAlgoRSASHA512, false},
		{1, ssh.KeyAlgoRSASHA512, false},
		{flagRSASHA256 | flagRSASHA512, ssh.KeyAlgoRSASHA512, false},
		{flagRSASHA256 | flagRSASHA512, ssh.KeyAlgoRSASHA256, false},
		{flagRSASHA512 | 8, ssh.KeyAlgoRSASHA512, false},
		{flagRSASHA256 | 1, ssh.KeyAlgoRSASHA256, false},
	} {
		data := login("s1", key, nil).with(func(u *userauth) { u.Algorithm = row.algorithm })
		if ok := c.sign(key, data, row.flags); ok != row.ok {
			t.Errorf("flags %d, %s: signed %t", row.flags, row.algorithm, ok)
		}
	}
}

// TestAllowUnbound: an allowed key signs files on a connection that is not bound, and never
// a login there.
func TestAllowUnbound(t *testing.T) {
	f := newFleet(t)
	host := newSigner(t)
	f.addNode(t, "hive-01", host.PublicKey())
	key := f.addKey(t, "git", "hive-01")
	other := f.addKey(t, "other")
	a := f.start(t, func(c *Config) { c.AllowUnbound = []string{ssh.FingerprintSHA256(key)} })
	c := a.dial(t)
	if list := c.list(); len(list) != 1 || list[0] != "git" {
		t.Errorf("lists %q", list)
	}
	file := fileData("git")
	for _, row := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"file", file.data(), true},
		{"sha256", file.with(func(s *sshsig) { s.Hash, s.Digest = "sha256", s.Digest[:32] }), true},
		{"wrong size", file.with(func(s *sshsig) { s.Digest = s.Digest[:32] }), false},
		{"unknown hash", file.with(func(s *sshsig) { s.Hash = "sha1" }), false},
		{"no namespace", file.with(func(s *sshsig) { s.Namespace = "" }), false},
		{"namespace too long", file.with(func(s *sshsig) { s.Namespace = strings.Repeat("n", maxName+1) }), false},
		{"reserved", file.with(func(s *sshsig) { s.Reserved = "x" }), false},
		{"bytes behind", append(file.data(), 0), false},
		{"another magic", file.with(func(s *sshsig) { s.Magic[5] = 'H' }), false},
		{"magic alone", []byte(sshsigMagic), false},
		{"login", login("s1", key, nil).data(), false},
		{"host bound login", login("s1", key, host.PublicKey().Marshal()).data(), false},
	} {
		if ok := c.sign(key, row.data, 0); ok != row.ok {
			t.Errorf("%s: signed %t", row.name, ok)
		}
	}
	if c.sign(other, file.data(), 0) {
		t.Error("signs with a key that is not allowed")
	}
	if got := f.signed(t); len(got) != 2 || !strings.HasPrefix(got[0], `data of namespace "git"; pid `) {
		t.Errorf("audited %q", got)
	}
}

// FuzzConnection: whatever bytes come, each request has one answer of a kind that belongs
// to it, and nothing is signed that was not asked for by a valid bind.
func FuzzConnection(f *testing.F) {
	fl := newFleet(f)
	host := newSigner(f)
	fl.addNode(f, "hive-01", host.PublicKey())
	key := fl.addKey(f, "a", "hive-01")
	s, err := New(Config{Registry: Lend(fl.Registry)})
	check(f, err)
	bound := bindMessage(f, host.PublicKey().Marshal(), host, "s1", 0)
	request := ssh.Marshal(signRequest{key.Marshal(), login("s1", key, nil).data(), 0})
	for _, seed := range [][]byte{
		frame([]byte{msgRequestIdentities}), frame(bound), frame(extension("query", nil)), frame(ssh.Marshal(lockMessage{})),
		append(frame(bound), frame(request)...),
		append(frame(bindMessage(f, host.PublicKey().Marshal(), host, "s1", 1)), frame(request)...),
		{0, 0, 0, 0}, {0, 0, 0, 9, 11},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte{msgUnlock, 0, 0}) || bytes.Contains(data, []byte{msgLock, 0, 0}) {
			return // slow by design; TestLock
		}
		c := &connection{server: s}
		conn := &script{in: bytes.NewReader(data)}
		c.serve(t.Context(), conn)
		sent := 0
		for rest := data; len(rest) > 4; {
			n := int(binary.BigEndian.Uint32(rest))
			if n == 0 || n > maxMessage || n > len(rest)-4 {
				break
			}
			message := rest[4 : 4+n]
			rest = rest[4+n:]
			answer := conn.next(t)
			sent++
			kind := map[byte]byte{msgRequestIdentities: msgIdentitiesAnswer, msgSignRequest: msgSignResponse, msgExtension: msgSuccess}[message[0]]
			if answer[0] != msgFailure && answer[0] != kind {
				t.Fatalf("request %d got answer %d", message[0], answer[0])
			}
			if answer[0] == msgSignResponse && !bytes.Contains(data, bound) {
				t.Fatal("signed without the one valid bind")
			}
		}
		if conn.out.Len() > 0 {
			t.Fatalf("more answers than the %d requests", sent)
		}
	})
}

// script is a connection that brings some bytes and ends.
type script struct {
	idleConn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }

func (s *script) next(t *testing.T) []byte {
	head := s.out.Next(4)
	if len(head) < 4 {
		t.Fatal("a request has no answer")
	}
	answer := s.out.Next(int(binary.BigEndian.Uint32(head)))
	if len(answer) == 0 {
		t.Fatal("an empty answer")
	}
	return answer
}

// FuzzLogin: what is parsed is written the same again, so there is one form of it.
func FuzzLogin(f *testing.F) {
	s, err := ssh.NewSignerFromKey(rsaKey())
	check(f, err)
	f.Add(login("s1", s.PublicKey(), nil).data())
	f.Add(login("s1", s.PublicKey(), []byte("host key")).data())
	f.Add(fileData("git").data())
	f.Fuzz(func(t *testing.T, data []byte) {
		u, hostKey, err := parseUserauth(data)
		namespace, errFile := parseSSHSIG(data)
		if err == nil && errFile == nil {
			t.Fatal("both a login and a file")
		}
		if err == nil {
			again := u
			again.Rest = nil
			if u.Method == methodHostBound {
				again.Rest = ssh.Marshal(hostBound{hostKey})
			}
			if !bytes.Equal(again.data(), data) || u.Message != msgUserauthRequest || u.Signed != 1 || u.Service != serviceConnection {
				t.Fatal("a login has a second form")
			}
		} else if u.Key != nil || hostKey != nil {
			t.Fatal("a value beside the error")
		}
		if errFile == nil {
			var s sshsig
			if ssh.Unmarshal(data, &s) != nil || !bytes.Equal(s.data(), data) || s.Namespace != namespace || namespace == "" {
				t.Fatal("a file has a second form")
			}
		} else if namespace != "" {
			t.Fatal("a value beside the error")
		}
		if !bytes.HasPrefix(data, []byte(sshsigMagic)) && errFile == nil {
			t.Fatal("a file without its magic")
		}
	})
}

// idleConn is a connection whose deadlines never come.
type idleConn struct{ net.Conn }

func (idleConn) SetReadDeadline(time.Time) error  { return nil }
func (idleConn) SetWriteDeadline(time.Time) error { return nil }

// TestStalled: a request that does not come to its end, and an answer that nobody takes,
// end the connection. A connection on which nothing begins stays.
func TestStalled(t *testing.T) {
	for name, row := range map[string]struct {
		send []byte
		read int // bytes of the answer
		ends bool
	}{
		"nothing":        {nil, 0, false},
		"a request":      {frame([]byte{200}), 5, false},
		"half a request": {[]byte{0, 0, 0, 9, msgExtension}, 0, true},
		"no reader":      {frame([]byte{200}), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				ended := make(chan struct{})
				go func() {
					(&connection{server: &Server{}}).serve(t.Context(), ours)
					ours.Close()
					close(ended)
				}()
				theirs.Write(row.send)
				io.ReadFull(theirs, make([]byte, row.read))
				time.Sleep(messageTime - time.Second)
				synctest.Wait()
				select {
				case <-ended:
					t.Error("ended too early")
				default:
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				select {
				case <-ended:
					if !row.ends {
						t.Error("ended without a reason")
					}
				default:
					if row.ends {
						t.Error("still waits")
					}
				}
				theirs.Close()
				<-ended
			})
		})
	}
}

// TestLargeAnswer: a list that is larger than clients take is a failure.
func TestLargeAnswer(t *testing.T) {
	conn := &script{}
	check(t, writeMessage(conn, make([]byte, maxMessage)))
	if answer := conn.next(t); len(answer) != maxMessage {
		t.Errorf("%d bytes", len(answer))
	}
	check(t, writeMessage(conn, make([]byte, maxMessage+1)))
	if answer := conn.next(t); !bytes.Equal(answer, failure) {
		t.Errorf("%d bytes", len(answer))
	}
}

// keepingConn keeps the memory that was read into.
type keepingConn struct {
	script
	kept [][]byte
}

func (c *keepingConn) Read(p []byte) (int, error) {
	c.kept = append(c.kept, p)
	return c.script.Read(p)
}

// TestWiped: nothing is kept of a request, which may have a private key or a passphrase.
func TestWiped(t *testing.T) {
	f := newFleet(t)
	s, err := New(Config{Registry: Lend(f.Registry)})
	check(t, err)
	secret := []byte("planted secret")
	messages := [][]byte{append([]byte{17}, secret...), ssh.Marshal(lockMessage{secret}), extension(extensionBind, secret), ssh.Marshal(signRequest{secret, secret, 0})}
	var sent []byte
	for _, m := range messages {
		sent = append(sent, frame(m)...)
	}
	sent = append(sent, frame(messages[0])[:10]...) // and one that is cut
	conn := &keepingConn{script: script{in: bytes.NewReader(sent)}}
	(&connection{server: s}).serve(t.Context(), conn)
	if len(conn.kept) < 2*len(messages) {
		t.Fatalf("%d reads", len(conn.kept))
	}
	for _, p := range conn.kept {
		if len(p) > 4 && !bytes.Equal(p, make([]byte, len(p))) {
			t.Error("a request is still in memory")
		}
	}
}
