package agent

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// TestBesideOpenSSH is the table of SECURITY.md: what OpenSSH's tools get of this agent, of
// OpenSSH's, and of OpenSSH's where the key was added with the host as its destination.
func TestBesideOpenSSH(t *testing.T) {
	s := newSite(t, false)
	server := s.sshd(t, "one", "hive-ed25519", ssh.KeyAlgoED25519)
	s.config.WriteString(" HostKeyAlgorithms ssh-ed25519\n")
	s.sshd(t, "two", "", "")
	check(t, s.RemoveSSHKey(t.Context(), ssh.FingerprintSHA256(rsaPublic(t)), true)) // ed25519 alone
	keys, err := s.ListSSHKeys(t.Context())
	check(t, err)
	known := filepath.Join(s.dir, "known")
	host, err := os.ReadFile(server.PublicFiles[0])
	check(t, err)
	check(t, os.WriteFile(known, []byte("one "+string(host)), 0o600))
	key, file := filepath.Join(s.dir, "key.pub"), filepath.Join(s.dir, "file")
	check(t, os.WriteFile(key, []byte(keys[0].PublicKey+"\n"), 0o600))
	check(t, os.WriteFile(file, []byte("content"), 0o600))

	loginTo := func(name string) bool {
		out, err := s.ssh(t, name, "echo", "in")
		return err == nil && out == "in\n"
	}
	forwarded := func(command string) string {
		out, _ := s.ssh(t, "-A", "one", command)
		return out
	}
	rows := []struct {
		what string
		is   func() bool
		want string // this agent, ssh-agent, ssh-agent with a destination
	}{
		{"ssh-add -l lists the key", func() bool {
			out, err := s.run(t, "ssh-add", "-l")
			return err == nil && strings.Contains(out, keys[0].Fingerprint)
		}, "no yes yes"},
		{"ssh-keygen -Y sign signs", func() bool {
			os.Remove(file + ".sig")
			_, err := s.run(t, "ssh-keygen", "-Y", "sign", "-n", "git", "-f", key, file)
			return err == nil
		}, "no yes no"},
		{"a program that does not bind gets a login", func() bool { return s.unboundLogin(t, publicKey(t, keys[0].PublicKey)) }, "no yes no"},
		{"ssh logs in to the host", func() bool { return loginTo("one") }, "yes yes yes"},
		{"ssh logs in to another host", func() bool { return loginTo("two") }, "no yes no"},
		{"ssh -A: the host lists the key", func() bool { return strings.Contains(forwarded("ssh-add -l"), keys[0].Fingerprint) }, "no yes no"},
		{"ssh -A: the host logs in to another host", func() bool {
			return strings.Contains(forwarded("ssh -F "+s.configFile(t)+" two echo in"), "in\n")
		}, "no yes no"},
	}
	sockets := []string{s.socket, startOpenSSHAgent(t, s.fleet), startOpenSSHAgent(t, s.fleet, "-h", "one", "-H", known)}
	for _, row := range rows {
		var got []string
		for _, socket := range sockets {
			s.socket = socket
			got = append(got, map[bool]string{true: "yes", false: "no"}[row.is()])
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

// unboundLogin asks for the signature of a login to a host of the asker's own.
func (s *site) unboundLogin(t *testing.T, key ssh.PublicKey) bool {
	t.Helper()
	conn, err := net.Dial("unix", s.socket)
	check(t, err)
	defer conn.Close()
	_, err = sshagent.NewClient(conn).Sign(key, login("session", key, nil).data())
	return err == nil
}

func rsaPublic(t *testing.T) ssh.PublicKey {
	t.Helper()
	key, err := ssh.NewPublicKey(&rsaKey().PublicKey)
	check(t, err)
	return key
}
