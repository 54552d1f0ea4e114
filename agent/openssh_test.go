package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

// site is an agent with sshd servers, all of which let every key of the registry in: what
// is refused, the agent refuses.
type site struct {
	fleet
	running
	authorized string
	dir        string
	config     strings.Builder // of the OpenSSH client
}

// newSite starts an agent. A node "hive-ed25519" and one "hive-rsa" have a key each, which
// sign files if allowUnbound is set.
func newSite(t *testing.T, allowUnbound bool) *site {
	t.Helper()
	s := &site{fleet: newFleet(t), dir: shortDir(t)}
	s.addNode(t, "hive-ed25519")
	s.addNode(t, "hive-rsa")
	var fingerprints []string
	for _, key := range []ssh.PublicKey{s.addKey(t, "ed25519", "hive-ed25519"), s.addRSAKey(t, "rsa", "hive-rsa")} {
		s.authorized += string(ssh.MarshalAuthorizedKey(key))
		fingerprints = append(fingerprints, ssh.FingerprintSHA256(key))
	}
	s.running = s.start(t, func(c *Config) {
		if allowUnbound {
			c.AllowUnbound = fingerprints
		}
	})
	return s
}

// sshd starts a server, by whose name ssh finds it. node has its host key of the type
// pinned; "": none has.
func (s *site) sshd(t *testing.T, name, node, keyType string, options ...string) sshdtest.Server {
	t.Helper()
	server := sshdtest.Start(t, s.authorized, options...)
	fmt.Fprintf(&s.config, "Host %s\n HostName %s\n Port %s\n User %s\n", name, server.Host, server.Port, server.User)
	for _, file := range server.PublicFiles {
		line, err := os.ReadFile(file)
		check(t, err)
		if key := publicKey(t, string(line)); key.Type() == keyType && node != "" {
			_, err := s.TrustHostKey(t.Context(), node, key)
			check(t, err)
		}
	}
	return server
}

// run runs a command that has the agent, and returns what it printed.
func (s *site) run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = s.dir
	askpass := filepath.Join(s.dir, "askpass")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+s.socket, "HOME="+s.dir, "SSH_ASKPASS="+askpass, "SSH_ASKPASS_REQUIRE=force")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ssh runs ssh, which reads no configuration but the site's.
func (s *site) ssh(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return s.run(t, "ssh", append([]string{"-F", s.configFile(t)}, args...)...)
}

func (s *site) configFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(s.dir, "config")
	text := s.config.String() + `Host *
 StrictHostKeyChecking no
 UserKnownHostsFile /dev/null
 GlobalKnownHostsFile /dev/null
 PreferredAuthentications publickey
 IdentityFile none
 LogLevel ERROR
 BatchMode yes
`
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// TestOpenSSH logs in with the OpenSSH client and server.
func TestOpenSSH(t *testing.T) {
	s := newSite(t, false)
	s.sshd(t, "one", "hive-ed25519", ssh.KeyAlgoED25519)
	s.config.WriteString(" HostKeyAlgorithms ssh-ed25519\n") // for a jump too, which -o is not
	s.sshd(t, "two", "hive-rsa", ssh.KeyAlgoRSA)
	s.config.WriteString(" HostKeyAlgorithms rsa-sha2-512\n")
	s.sshd(t, "stranger", "", "")
	nested := "ssh-add -l; ssh -F " + s.configFile(t) + " two echo in"
	for _, row := range []struct {
		name string
		args []string
		in   bool
		rows []string // the nodes of the audit rows
	}{
		{"pinned", []string{"one", "echo", "in"}, true, []string{"hive-ed25519"}},
		{"RSA", []string{"two", "echo", "in"}, true, []string{"hive-rsa"}},
		{"RSA with SHA-256", []string{"-o", "PubkeyAcceptedAlgorithms=rsa-sha2-256", "two", "echo", "in"}, true, []string{"hive-rsa"}},
		{"host key of another type", []string{"-o", "HostKeyAlgorithms=rsa-sha2-512", "one", "echo", "in"}, false, nil},
		{"stranger", []string{"stranger", "echo", "in"}, false, nil},
		{"jump", []string{"-J", "one", "two", "echo", "in"}, true, []string{"hive-ed25519", "hive-rsa"}},
		{"jump to a stranger", []string{"-J", "one", "stranger", "echo", "in"}, false, []string{"hive-ed25519"}},
		{"jump through a stranger", []string{"-J", "stranger", "one", "echo", "in"}, false, nil},
		{"forwarded", []string{"-A", "one", nested}, false, []string{"hive-ed25519"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := len(s.signed(t))
			out, err := s.ssh(t, row.args...)
			if in := err == nil && strings.Contains(out, "in\n"); in != row.in {
				t.Errorf("in: %t, %v: %s", in, err, out)
			}
			if row.name == "forwarded" && !strings.Contains(out, "The agent has no identities.") {
				t.Errorf("the remote host reached no agent: %s", out)
			}
			signed := s.signed(t)[before:]
			if len(signed) != len(row.rows) {
				t.Fatalf("audited %q", signed)
			}
			for i, node := range row.rows {
				if !strings.HasPrefix(signed[i], "login to "+node+"; user ") || !strings.HasSuffix(signed[i], "/ssh)") {
					t.Errorf("audited %q", signed[i])
				}
			}
		})
	}
}

// TestOpenSSHCertificate logs in at a server that presents a certificate. The pin is the
// plain key.
func TestOpenSSHCertificate(t *testing.T) {
	s := newSite(t, false)
	host, ca := filepath.Join(s.dir, "host"), filepath.Join(s.dir, "ca")
	for _, args := range [][]string{
		{"-q", "-t", "ed25519", "-N", "", "-f", host},
		{"-q", "-t", "ed25519", "-N", "", "-f", ca},
		{"-q", "-s", ca, "-h", "-I", "host", "-n", "127.0.0.1", host + ".pub"},
	} {
		if out, err := s.run(t, "ssh-keygen", args...); err != nil {
			t.Fatal(err, out)
		}
	}
	check(t, os.Chmod(s.dir, 0o755))
	s.sshd(t, "one", "", "", "HostKey "+host, "HostCertificate "+host+"-cert.pub")
	login := []string{"-o", "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com", "one", "echo", "in"}
	if out, err := s.ssh(t, login...); err == nil {
		t.Errorf("in without a pin: %s", out)
	}
	line, err := os.ReadFile(host + ".pub")
	check(t, err)
	_, err = s.TrustHostKey(t.Context(), "hive-ed25519", publicKey(t, string(line)))
	check(t, err)
	if out, err := s.ssh(t, login...); err != nil || out != "in\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestOpenSSHTools uses the agent with ssh-add and ssh-keygen, which do not bind.
func TestOpenSSHTools(t *testing.T) {
	for _, allow := range []bool{false, true} {
		s := newSite(t, allow)
		keys, err := s.ListSSHKeys(t.Context())
		check(t, err)
		out, err := s.run(t, "ssh-add", "-l")
		if listed := err == nil && strings.Count(out, "SHA256:") == len(keys); listed != allow || !allow && !strings.Contains(out, "no identities") {
			t.Errorf("ssh-add -l: %v: %s", err, out)
		}
		file := filepath.Join(s.dir, "file")
		check(t, os.WriteFile(file, []byte("content"), 0o600))
		for _, k := range keys {
			public := filepath.Join(s.dir, k.Comment+".pub")
			check(t, os.WriteFile(public, []byte(k.PublicKey+"\n"), 0o600))
			os.Remove(file + ".sig")
			out, err := s.run(t, "ssh-keygen", "-Y", "sign", "-n", "git", "-f", public, file)
			if (err == nil) != allow {
				t.Errorf("sign with %s: %v: %s", k.Type, err, out)
			}
			if !allow {
				continue
			}
			verify := fmt.Sprintf("ssh-keygen -Y check-novalidate -n git -s %s.sig < %s", file, file)
			if out, err := s.run(t, "sh", "-c", verify); err != nil {
				t.Errorf("verify: %v: %s", err, out)
			}
		}

		foreign := filepath.Join(s.dir, "foreign")
		if out, err := s.run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", foreign); err != nil {
			t.Fatal(err, out)
		}
		for _, args := range [][]string{{foreign}, {"-c", foreign}, {"-t", "60", foreign}, {"-d", foreign}, {"-D"}, {"-s", "/usr/lib/none.so"}, {"-e", "/usr/lib/none.so"}} {
			if out, err := s.run(t, "ssh-add", args...); err == nil {
				t.Errorf("ssh-add %s: %s", args, out)
			}
		}

		ask := func(passphrase string) {
			check(t, os.WriteFile(filepath.Join(s.dir, "askpass"), []byte("#!/bin/sh\necho "+passphrase+"\n"), 0o700))
		}
		ask("right")
		if out, err := s.run(t, "ssh-add", "-x"); err != nil {
			t.Errorf("lock: %v: %s", err, out)
		}
		if out, _ := s.run(t, "ssh-add", "-l"); !strings.Contains(out, "no identities") {
			t.Errorf("locked, and lists: %s", out)
		}
		ask("wrong")
		if out, err := s.run(t, "ssh-add", "-X"); err == nil {
			t.Errorf("unlocked with a wrong passphrase: %s", out)
		}
		ask("right")
		if out, err := s.run(t, "ssh-add", "-X"); err != nil {
			t.Errorf("unlock: %v: %s", err, out)
		}
	}
}
