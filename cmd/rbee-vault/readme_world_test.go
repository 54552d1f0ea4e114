package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee-vault/internal/s3test"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
)

// inWorldVariable is set in the process that has the world to itself.
const inWorldVariable = "RBEE_VAULT_README_WORLD"

func inWorld() bool { return os.Getenv(inWorldVariable) != "" }

// enterWorld runs the test that calls it once more, as root, with a network, mounts and processes
// of its own. There README's machines have their addresses, nothing else can be reached, the
// commands of root change nothing of this machine, and no process outlives the test.
func enterWorld(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := []string{"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		line = append(line, "--map-root-user", "--map-auto")
	}
	line = append(line, exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd := exec.CommandContext(t.Context(), "unshare", line...)
	cmd.Env = append(os.Environ(), inWorldVariable+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v", err)
	}
}

// hosts has the names that README gives to machines. All of 192.0.2.0/24 is one sshd, which
// lets in whom ~ops/.ssh/authorized_keys names.
const hosts = `127.0.0.1 localhost minio.example.org
192.0.2.1 hive-01.example.org hive-01
`

// world is where README's commands run.
type world struct {
	dir     string
	home    string // of the operator, who is root: ssh takes it from the account
	env     []string
	machine string // whose home directory that is now; the others' are in machines
}

func newWorld(t *testing.T) *world {
	w := &world{dir: t.TempDir()}
	w.home = filepath.Join(w.dir, "me")
	if err := os.Mkdir(w.machines(), 0o700); err != nil {
		t.Fatal(err)
	}
	w.must(t, nil, "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; ip address add 192.0.2.1/24 dev lo")
	off, minio := s3test.StartIn(t, "eu-central-1"), s3test.Start(t)
	off.Bucket(t, "fleet-backups", true)
	minio.PlainBucket(t, "backups")
	key := minio.User(t, "AKID")
	minio.Allow(t, "backups", map[string][]string{key.AccessKey: {"s3:PutObject"}})
	session := keyringtest.Start(t)

	program, err := exec.LookPath("rbee-vault")
	if err != nil {
		t.Fatal(err)
	}
	ops := filepath.Join(w.dir, "ops")
	account := fmt.Sprintf("ops:x:0:0::%s:/bin/sh", ops) // root, for whom sshd needs no privilege
	w.must(t, nil, `
mkdir "$1" "$1/etc" "$2"
cp -a /etc/. "$1/etc" 2>/dev/null || [ "$3" != 0 ] # a user cannot read all of it
mount --bind "$1/etc" /etc
printf %s "$4" >/etc/hosts
sed -i "s|^root:\(.*\):[^:]*:\([^:]*\)$|root:\1:$5:\2|; \$a $6" /etc/passwd
for dir in /run /media /usr/local/bin /var/lib /var/log; do mount -t tmpfs tmpfs $dir; done
mkdir -m 700 /run/me
touch /var/log/lastlog # sshd looks for it
mkdir -p /media/usb/backups
cp "$7" /usr/local/bin/rbee-vault
`, filepath.Join(w.dir, "root"), ops, strconv.Itoa(os.Getuid()), hosts, w.home, account, program)

	authority := serveTLS(t, "minio.example.org", minio.URL)
	sshdtest.Start(t, "", "ListenAddress 0.0.0.0:22", "AuthorizedKeysFile .ssh/authorized_keys", "Subsystem sftp internal-sftp")
	agent := exec.Command("ssh-agent", "-D", "-a", "/run/me/ssh-agent")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	w.env = append([]string{
		"HOME=" + w.home, "PATH=" + w.home + "/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
		"LANG=C.UTF-8", "TERM=xterm", "NO_COLOR=1", "USER=root",
		"OPS=" + ops, "MACHINES=" + w.machines(),
		"SYSTEMD_CREDENTIAL_SECRET=" + filepath.Join(w.dir, "host-secret"), // not this machine's
		"SSL_CERT_FILE=" + authority, "AWS_ENDPOINT_URL=" + off.URL,
		"S3_ACCESS_KEY=" + off.Root.AccessKey, "S3_SECRET=" + off.Root.Secret, "MINIO_SECRET=" + key.Secret,
	}, session.Env()...)
	w.env = append(w.env, "XDG_RUNTIME_DIR=/run/me", "SSH_AUTH_SOCK=/run/me/ssh-agent")
	return w
}

func (w *world) machines() string { return filepath.Join(w.dir, "machines") }

// must runs commands of the test's own.
func (w *world) must(t *testing.T, env []string, script string, args ...string) {
	t.Helper()
	cmd := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "prepare"}, args...)...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it has no terminal to ask on
	if env != nil {
		cmd.Dir = w.home
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v\n%s\n%s", err, script, out)
	}
}

// begin makes a section's state.
func (w *world) begin(t *testing.T, s readmeSection) {
	t.Helper()
	if s.machine != "" && s.machine != w.machine {
		w.move(t, s.machine)
	}
	w.must(t, w.env, s.prepare)
	if s.hook != nil {
		s.hook(t, w)
	}
}

// move puts the home directory of another machine in place, an empty one at first.
func (w *world) move(t *testing.T, machine string) {
	t.Helper()
	if w.machine != "" {
		if err := os.Rename(w.home, filepath.Join(w.machines(), w.machine)); err != nil {
			t.Fatal(err)
		}
	}
	w.machine = machine
	err := os.Rename(filepath.Join(w.machines(), machine), w.home)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(w.home, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serveTLS is an HTTPS server of this name that passes everything on. It returns the file of
// its certificate.
func serveTLS(t *testing.T, name, to string) (authority string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		}},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
	}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	authority = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return authority
}

// readmeShell is a bash that runs a block's lines on a terminal, and an operator before it.
type readmeShell struct {
	t      *testing.T
	c      *console
	script *os.File // which bash reads line by line
	status chan string
	ended  chan struct{}
	seen   int // of the terminal's text: how much has been answered
}

func (w *world) shell(t *testing.T) *readmeShell {
	t.Helper()
	in, script, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	statuses, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-euo", "pipefail", "/dev/fd/3")
	cmd.Dir, cmd.Env, cmd.ExtraFiles = w.home, w.env, []*os.File{in, out}
	// Tall, so that nothing goes into a pager.
	c := runOnTerminal(t, unix.Winsize{Row: 200, Col: 200}, cmd)
	s := &readmeShell{t: t, c: c, script: script, status: make(chan string), ended: make(chan struct{})}
	in.Close()
	out.Close()
	go func() {
		c.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		script.Close()
		cmd.Process.Kill()
		<-s.ended
		statuses.Close()
	})
	go func() {
		for lines := bufio.NewScanner(statuses); lines.Scan(); {
			select {
			case s.status <- lines.Text():
			case <-s.ended:
			}
		}
	}()
	// As at a prompt: Ctrl-C is for what runs in the foreground, and the shell goes on.
	s.write("set -m; trap : INT; exec 3<&-\n")
	return s
}

// write gives bash lines to run.
func (s *readmeShell) write(lines string) {
	s.t.Helper()
	if _, err := io.WriteString(s.script, lines); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a line, and answers what it asks.
func (s *readmeShell) run(line string, special readmeLine) {
	s.t.Helper()
	from := len(s.c.screen())
	s.seen = from
	if special.exit != 0 {
		s.write("set +e\n")
	}
	s.write(line + "\necho $? >&4; set -e\n")
	script := special.keys
	ended := false
	deadline := time.After(time.Minute)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !ended || len(script) > 0 {
		select {
		case <-s.ended:
			s.t.Fatalf("exit code %d: %s\n%s", s.c.cmd.ProcessState.ExitCode(), line, s.c.screen()[from:])
		case status := <-s.status:
			if status != strconv.Itoa(special.exit) {
				s.t.Fatalf("exit code %s, want %d: %s\n%s", status, special.exit, line, s.c.screen()[from:])
			}
			ended = true
		case <-s.c.more:
			screen := s.c.screen()
			text := strings.ReplaceAll(screen[s.seen:], "\r", "")
			if len(script) > 0 && script[0].listens == "" {
				if m := regexp.MustCompile(script[0].after).FindStringSubmatch(text); m != nil {
					s.seen = len(screen)
					s.answer(m, script[0])
					script = script[1:]
				}
				continue
			}
			for _, known := range readmeAnswers {
				if m := regexp.MustCompile(known.after).FindStringSubmatch(text); m != nil {
					s.seen = len(screen)
					s.answer(m, known)
					break
				}
			}
		case <-poll.C:
			if len(script) > 0 && script[0].listens != "" {
				if conn, err := net.Dial("tcp", script[0].listens); err == nil {
					conn.Close()
					s.answer(nil, script[0])
					script = script[1:]
				}
			}
		case <-deadline:
			s.t.Fatalf("ended: %t, still to type: %v: %s\n%s", ended, script, line, s.c.screen()[from:])
		}
	}
	s.t.Logf("$ %s\n%s", line, s.c.screen()[from:])
}

// onSheet is what the operator reads from the sheet, by its pattern there.
var onSheet = map[string]string{"$recovery": `AGE-SECRET-KEY-1[0-9A-Z]+`, "$signer": `SHA256:\S+`}

// answer types what belongs to a match.
func (s *readmeShell) answer(m []string, k keys) {
	s.t.Helper()
	text := k.send
	for word, pattern := range onSheet {
		if strings.Contains(text, word) {
			sheet, err := os.ReadFile(filepath.Join(s.c.cmd.Dir, "recovery.txt"))
			if err != nil {
				s.t.Fatal(err)
			}
			text = strings.ReplaceAll(text, word, regexp.MustCompile(pattern).FindString(string(sheet)))
		}
	}
	if len(m) > 1 {
		text = strings.ReplaceAll(text, "$1", m[1])
	}
	s.c.send(text)
}

// end ends the shell, and what it has in the background.
func (s *readmeShell) end() {
	s.t.Helper()
	s.write(`[ -z "$(jobs -p)" ] || { kill $(jobs -p); wait; }` + "\n")
	s.script.Close()
	<-s.ended
	if code := s.c.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("the shell ends with %d:\n%s", code, s.c.screen())
	}
}
