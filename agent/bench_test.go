package agent

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// BenchmarkSign has clients sign as often as they can, with this agent and, in the same
// run, with OpenSSH's, which writes no audit log. The agents have the same keys.
func BenchmarkSign(b *testing.B) {
	f := newFleet(b)
	host := newSigner(b)
	f.addNode(b, "hive-01", host.PublicKey())
	f.addNode(b, "hive-02", host.PublicKey())
	keys := []struct {
		name  string
		key   ssh.PublicKey
		flags sshagent.SignatureFlags
	}{
		{"ed25519", f.addKey(b, "ed25519", "hive-01"), 0},
		{"rsa3072", f.addRSAKey(b, "rsa3072", "hive-02"), sshagent.SignatureFlagRsaSha512},
	}
	ours := f.start(b, nil)
	theirs := startOpenSSHAgent(b, f)
	for _, k := range keys {
		for _, clients := range []int{1, 16} {
			for _, agent := range []struct{ name, socket string }{{"ours", ours.socket}, {"openssh", theirs}} {
				name := k.name + "/1-client/" + agent.name
				if clients > 1 {
					name = k.name + "/16-clients/" + agent.name
				}
				b.Run(name, func(b *testing.B) { benchSign(b, agent.socket, clients, host, k.key, k.flags) })
			}
		}
	}
}

func benchSign(b *testing.B, socket string, clients int, host ssh.Signer, key ssh.PublicKey, flags sshagent.SignatureFlags) {
	var connections []sshagent.ExtendedAgent
	for range clients {
		conn, err := net.Dial("unix", socket)
		check(b, err)
		defer conn.Close()
		c := sshagent.NewClient(conn)
		_, err = c.Extension(extensionBind, bindMessage(b, host.PublicKey().Marshal(), host, "session", 0)[5+len(extensionBind):])
		check(b, err)
		connections = append(connections, c)
	}
	data := login("session", key, host.PublicKey().Marshal()).data()
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, clients)
	b.ResetTimer()
	begin := time.Now()
	for _, c := range connections {
		go func() {
			for left.Add(-1) >= 0 {
				if _, err := c.SignWithFlags(key, data, flags); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		check(b, <-done)
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "signatures/s")
}

// startOpenSSHAgent starts an ssh-agent with all keys of the registry, which ssh-add adds with
// these options, and returns its socket.
func startOpenSSHAgent(b testing.TB, f fleet, options ...string) string {
	socket := filepath.Join(shortDir(b), "openssh")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	check(b, cmd.Start())
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			b.Fatal("ssh-agent does not listen")
		}
	}
	list, err := f.ListSSHKeys(b.Context())
	check(b, err)
	for _, k := range list {
		private, err := f.ExportSSHKey(b.Context(), k.Fingerprint, "test")
		check(b, err)
		add := exec.Command("ssh-add", append(options, "-q", "-")...)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		add.Stdin = bytes.NewReader(private)
		if out, err := add.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	return socket
}
