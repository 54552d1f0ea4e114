package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// tracedCalls are those that name a file or hand bytes to the kernel.
const tracedCalls = "trace=open,openat,creat,memfd_create,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg"

// straced is a trace of a run, with arguments as they were.
type straced struct {
	t     testing.TB
	lines [][]byte
}

// strace runs a command of h under strace until it ends. meanwhile gets the process's id.
func (h *hives) strace(meanwhile func(pid int), args ...string) straced {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "trace")
	cmd := exec.Command("strace", append([]string{"-f", "-xx", "-s", "200000", "-o", file, "-e", tracedCalls, "-e", "signal=none", "rbee-vault"}, args...)...)
	cmd.Env = append(os.Environ(), h.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	if meanwhile != nil {
		waitFor(h.t, "the trace", func() bool { data, err := os.ReadFile(file); return err == nil && bytes.Contains(data, []byte("\n")) })
		data, err := os.ReadFile(file)
		if err != nil {
			h.t.Fatal(err)
		}
		pid, err := strconv.Atoi(string(data[:bytes.IndexByte(data, ' ')]))
		if err != nil {
			h.t.Fatal(err)
		}
		meanwhile(pid)
	}
	if err := cmd.Wait(); err != nil {
		h.t.Fatalf("%v: %v: %s", args, err, &out)
	}
	return readTrace(h.t, file)
}

var hexByte = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func readTrace(t testing.TB, file string) straced {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := straced{t: t}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), []byte(`"...`)) {
			t.Fatalf("strace cut %.200s", lines.Bytes())
		}
		s.lines = append(s.lines, hexByte.ReplaceAllFunc(lines.Bytes(), func(b []byte) []byte {
			raw, _ := hex.DecodeString(string(b[2:]))
			return raw
		}))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

var opened = regexp.MustCompile(`(?s)^\d+ +(?:open|openat|creat)\((?:(?:AT_FDCWD|\d+), )?"(.*?)", (.*)`)

// wroteOnly sees that files were opened for writing in these directories only, and in each.
func (s straced) wroteOnly(dirs ...string) {
	s.t.Helper()
	found := map[string]bool{}
lines:
	for _, line := range s.lines {
		m := opened.FindSubmatch(line)
		if m == nil || !regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT`).Match(m[2]) {
			continue
		}
		path := string(m[1])
		for _, dir := range dirs {
			if strings.HasPrefix(path, dir) {
				found[dir] = true
				continue lines
			}
		}
		if path != "/dev/null" && path != "/dev/tty" {
			s.t.Errorf("%q was opened for writing", path)
		}
	}
	for _, dir := range dirs {
		if !found[dir] {
			s.t.Errorf("the trace shows no file in %s", dir)
		}
	}
}

// lacks sees that no call of those names handed the text to the kernel; "" is any call.
func (s straced) lacks(call, what string, text []byte) {
	s.t.Helper()
	for _, line := range s.lines {
		if strings.Contains(string(line[:min(len(line), 40)]), call) && bytes.Contains(line, text) {
			s.t.Errorf("%s in a call: %.60q", what, line)
		}
	}
}

// secretsOf returns what must not be seen of the private key with this comment: its bytes, their
// hex digits, and the lines of its PEM that hold them.
func (h *hives) secretsOf(key string) (secrets [][]byte) {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "key")
	h.must("ssh-key", "export", key, "-o", file, "--yes")
	data, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		h.t.Fatal(err)
	}
	seed := raw.(*ed25519.PrivateKey).Seed()
	secrets = [][]byte{seed[:16], seed[16:], []byte(hex.EncodeToString(seed[:16]))}
	block, _ := pem.Decode(data)
	at := bytes.Index(block.Bytes, seed)
	lines := bytes.Split(data, []byte("\n"))[1:]
	size := len(lines[0]) * 3 / 4
	for i, line := range lines { // most of it is in one of these
		if min((i+1)*size, at+len(seed))-max(i*size, at) >= 12 {
			secrets = append(secrets, line)
		}
	}
	return secrets
}

// TestTraced: the system calls of "rbee-vault ssh" and "rbee-vault agent", with all that they
// start, show no private key in any write, and the node's name in the private directory only.
func TestTraced(t *testing.T) {
	h, server := oneHive(t)
	const name = "planted-node"
	h.add(name, "rbee@test", server, true)
	secrets := h.secretsOf("rbee@test")
	vault := filepath.Join(strings.TrimPrefix(h.env[0], "HOME="), ".rbee", "beehives.db")

	run := h.strace(nil, "ssh", name, "true")
	run.wroteOnly(vault, filepath.Join(h.runtime, "rbee-vault-ssh-"))
	agent := h.strace(func(pid int) {
		waitFor(t, "the agent", func() bool { _, err := os.Stat(h.socket()); return err == nil })
		h.wantLogin(server, true)
		syscall.Kill(pid, syscall.SIGINT)
	}, "--no-input", "agent")
	agent.wroteOnly(vault)
	for _, trace := range []straced{run, agent} {
		for _, secret := range secrets {
			trace.lacks("", "a private key", secret)
		}
		for _, call := range []string{"pwrite", "writev(", "send"} { // to the vault, to the network
			trace.lacks(call, "a node's name", []byte(name))
		}
	}
	agent.lacks("write(", "a node's name", []byte(name))
	files, err := filepath.Glob(vault + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		if data, err := os.ReadFile(file); err != nil || bytes.Contains(data, []byte(name)) {
			t.Errorf("%s: %v, or it has the node's name", file, err)
		}
	}
}
