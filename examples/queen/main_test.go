package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestMain lets the test binary be the daemon.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_QUEEN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// daemon is a queen that runs.
type daemon struct {
	cmd    *exec.Cmd
	health string

	mu  sync.Mutex // guards log
	log []string
}

func start(t *testing.T, cfg vault.Config, args ...string) *daemon {
	t.Helper()
	credentials := t.TempDir()
	identity := cfg.Identities[0].(*age.X25519Identity).String() + "\n"
	check(t, os.WriteFile(filepath.Join(credentials, vault.CredentialName), []byte(identity), 0o400))
	d := &daemon{cmd: exec.Command(os.Args[0], append([]string{"-db", cfg.Path, "-health", "127.0.0.1:0", "-interval", "100ms"}, args...)...)}
	d.cmd.Env = append(os.Environ(), "TEST_QUEEN=1", "CREDENTIALS_DIRECTORY="+credentials)
	out, err := d.cmd.StderrPipe()
	check(t, err)
	check(t, d.cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.mu.Lock()
			d.log = append(d.log, lines.Text())
			d.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		d.cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := d.cmd.Wait(); err != nil {
			t.Errorf("the daemon ends with %v:\n%s", err, strings.Join(d.log, "\n"))
		}
	})
	_, d.health, _ = strings.Cut(d.said(t, "msg=ready"), "health=")
	return d
}

// said waits for a line of the log with these words, and returns it.
func (d *daemon) said(t *testing.T, words ...string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		d.mu.Lock()
		for _, line := range d.log {
			all := true
			for _, word := range words {
				all = all && strings.Contains(line, word)
			}
			if all {
				d.mu.Unlock()
				return line
			}
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t.Fatalf("it did not say %q:\n%s", words, strings.Join(d.log, "\n"))
	return ""
}

func (d *daemon) nodes(t *testing.T) map[registry.Status]int {
	t.Helper()
	answer, err := http.Get(d.health)
	check(t, err)
	defer answer.Body.Close()
	var health struct{ Nodes map[registry.Status]int }
	check(t, json.NewDecoder(answer.Body).Decode(&health))
	return health.Nodes
}

// TestLifecycle is the life of a node: registered, connected, discovered, monitored, and
// removed with its credentials, while the operator works in another process.
func TestLifecycle(t *testing.T) {
	cfg := vaulttest.Config(t)
	backups := filepath.Join(filepath.Dir(cfg.Path), "backups")
	d := start(t, cfg, "-backups", backups)
	ctx := t.Context()
	r, err := registry.Open(ctx, cfg)
	check(t, err)
	defer r.Close()

	key, err := registry.GeneratePrivateKey("ed25519", "hive-01")
	check(t, err)
	stored, err := r.AddSSHKey(ctx, key)
	check(t, err)
	server := sshdtest.Start(t, stored.PublicKey+"\n")
	port, err := strconv.Atoi(server.Port)
	check(t, err)
	pinned, err := os.ReadFile(server.PublicFiles[0])
	check(t, err)
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey(pinned)
	check(t, err)

	n := registry.Node{Name: "hive-01", SSHHost: server.Host, SSHPort: uint16(port), SSHUser: server.User, GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt/rbee"}
	_, err = r.CreateNodeWithKey(ctx, n, registry.KeyChoice{Use: stored.Fingerprint})
	check(t, err)
	_, err = r.TrustHostKey(ctx, n.Name, hostKey)
	check(t, err)

	d.said(t, "msg=registered", "node=hive-01")
	d.said(t, "name=hive-01", "is=online")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		now, err := r.GetNode(ctx, n.Name)
		check(t, err)
		if now.Devices[hive.BackendCPU] > 0 {
			if now.Status != registry.StatusOnline || now.LastConnected.IsZero() {
				t.Errorf("%+v", now)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it was not discovered: %+v", now)
		}
	}
	if got := fmt.Sprint(d.nodes(t)); got != "map[online:1]" {
		t.Errorf("health: %s", got)
	}
	if made, err := filepath.Glob(backups + "/*.age"); err != nil || len(made) != 1 {
		t.Errorf("backups: %v, %v", made, err)
	}

	// The operator rotates the vault's key: the daemon gives way, and goes on.
	_, err = r.Vault().Rotate(ctx)
	check(t, err)
	check(t, r.UpdateNode(ctx, n.Name, func(n *registry.Node) error { n.SSHPort = 1; return nil }))
	d.said(t, "name=hive-01", "was=online", "is=offline")

	removed, err := r.RemoveNode(ctx, n.Name)
	if err != nil || !removed {
		t.Errorf("%t, %v", removed, err)
	}
	d.said(t, "msg=removed", "node=hive-01")
	if keys, err := r.ListSSHKeys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("keys that are left: %v, %v", keys, err)
	}
	if got := d.nodes(t); len(got) != 0 {
		t.Errorf("health: %v", got)
	}
}
