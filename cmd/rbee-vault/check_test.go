package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// batches is a registry that counts the states of each write.
type batches struct {
	*registry.Registry
	sizes []int
}

func (b *batches) UpdateStates(ctx context.Context, states []registry.State) (registry.StatesReport, error) {
	b.sizes = append(b.sizes, len(states))
	return b.Registry.UpdateStates(ctx, states)
}

// TestCheckHundredNodes: one check finds a hundred nodes, each at an address of its own of ten
// servers, online, pins their keys, and stores all states in one batch. No
// connection and no goroutine is left behind.
func TestCheckHundredNodes(t *testing.T) {
	store := &batches{Registry: registry.New(vaulttest.New(t))}
	key, err := store.GenerateSSHKey(t.Context(), "ed25519", "")
	if err != nil {
		t.Fatal(err)
	}
	const count, servers = 100, 10 // an sshd listens at 16 addresses at most
	port := freePort(t)
	var hosts []string // addresses that nothing else listens at
	for i := range count {
		hosts = append(hosts, fmt.Sprintf("127.1.0.%d", i+1))
	}
	var s sshdtest.Server
	for listen := range slices.Chunk(hosts, count/servers) {
		options := []string{"MaxStartups 200"}
		for _, host := range listen {
			options = append(options, fmt.Sprintf("ListenAddress %s:%d", host, port))
		}
		s = sshdtest.Start(t, key.PublicKey, options...)
	}
	var names []string
	for i := range count {
		name := fmt.Sprintf("hive-%03d", i)
		names = append(names, name)
		err = store.CreateNode(t.Context(), registry.Node{
			Name: name, SSHHost: hosts[i], SSHPort: port, SSHUser: s.User,
			GitRepoURL: "https://example.org/rbee.git", GitBranch: "main", InstallPath: "/opt/rbee",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := store.AssignSSHKey(t.Context(), key.Fingerprint, names...); err != nil {
		t.Fatal(err)
	}
	nodes, err := store.ListNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	a := &app{json: true, noInput: true}
	a.ui = newUI(t.Context(), a, &out, &errs)
	o := checkOptions{timeout: time.Minute, contactOptions: contactOptions{acceptNew: true}}
	c := newChecker(a, o, store, &hive.Dialer{Registry: store.Registry, Timeout: o.timeout}, nodes)
	before, goroutines := openFiles(t), runtime.NumGoroutine()
	if err := c.once(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	waitFor(t, "connections to end", func() bool {
		return openFiles(t) <= before+16 && runtime.NumGoroutine() <= goroutines+16 // the database
	})
	if err := a.ui.flush(); err != nil {
		t.Fatal(err)
	}
	i := 0
	for line := range strings.Lines(out.String()) {
		var got checkJSON
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if i >= count || got.Node != names[i] || got.Outcome != "online" {
			t.Errorf("line %d: %s", i, line)
		}
		i++
	}
	if i != count || len(store.sizes) != 1 || store.sizes[0] != count {
		t.Errorf("%d lines, batches of %v states", i, store.sizes)
	}
	if nodes, err = store.ListNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Status != registry.StatusOnline || n.LastConnected.IsZero() {
			t.Errorf("%s: %s, %s", n.Name, n.Status, n.LastConnected)
		}
	}
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// openFiles returns how many descriptors the process has.
func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(list)
}

// checkFleet makes a vault with nodes for the servers. They use one key.
func checkFleet(t *testing.T) (env []string, server sshdtest.Server, add func(name, port string)) {
	t.Helper()
	env, recovery := keylessVault(t)
	env = append(env, "RBEE_VAULT_IDENTITY_FILE="+recovery)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := command(t, env, args...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d:\n%s", args, code, stderr)
		}
		return stdout
	}
	must("ssh-key", "generate", "--comment", "rbee@test")
	server = sshdtest.Start(t, must("ssh-key", "show", "rbee@test"))
	return env, server, func(name, port string) {
		t.Helper()
		must("node", "add", name, "--ssh-host", server.Host, "--ssh-port", port, "--ssh-user", server.User,
			"--git-repo", "https://example.org/rbee.git", "--install-path", "/opt/rbee", "--use-key", "rbee@test")
	}
}

// TestCheckBusy: a server that closes before it says who it is says nothing of the node.
func TestCheckBusy(t *testing.T) {
	env, _, add := checkFleet(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	add("hive-01", "1")
	if code, stdout, stderr := command(t, env, "check"); code != exitPartial || !strings.Contains(stdout, "\toffline\t") {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	command(t, env, "node", "update", "hive-01", "--ssh-port", port)
	code, stdout, _ := command(t, env, "check", "--json")
	if code != exitPartial || !strings.Contains(stdout, `"outcome":"busy","status":"offline"`) {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	if _, stdout, _ := command(t, env, "node", "list"); !strings.Contains(stdout, "\toffline\t") {
		t.Errorf("a busy server changed the status: %s", stdout)
	}
}

// TestCheckWatch: after the first round only what changed is printed, and Ctrl-C ends it.
func TestCheckWatch(t *testing.T) {
	env, server, add := checkFleet(t)
	add("hive-01", server.Port)
	add("hive-02", server.Port)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := startProcess(t, env, nil, in, "check", "--watch", "--interval", "1s", "--accept-new")
	in.Close()
	lines := bufio.NewScanner(out)
	expect := func(prefix string) {
		t.Helper()
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), prefix) {
			t.Fatalf("got %q, want %q: %s", lines.Text(), prefix, p.stderr.String())
		}
	}
	expect("hive-01\tonline\tonline\t")
	expect("hive-02\tonline\tonline\t")
	for _, row := range []struct{ port, want string }{
		{"1", "hive-02\trefused\toffline\t"},
		{server.Port, "hive-02\tonline\tonline\t"},
	} {
		if code, _, stderr := command(t, env, "node", "update", "hive-02", "--ssh-port", row.port); code != exitOK {
			t.Fatal(stderr)
		}
		expect(row.want) // the very next line: nothing was printed of hive-01
	}
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.ends(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
}

// TestCheckInterrupted: Ctrl-C ends a check of a node that does not answer.
func TestCheckInterrupted(t *testing.T) {
	env, _, add := checkFleet(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	add("hive-01", port)
	p := startProcess(t, env, nil, nil, "check", "--timeout", "10m")
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.ends(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	if _, stdout, _ := command(t, env, "node", "list"); !strings.Contains(stdout, "\tunknown\t") {
		t.Errorf("an interrupted check changed the status: %s", stdout)
	}
}

// TestCheckOnATerminal shows a table, and one hint for the nodes of an outcome.
func TestCheckOnATerminal(t *testing.T) {
	var out, errs bytes.Buffer
	a := &app{noInput: true}
	a.ui = newUI(t.Context(), a, &out, &errs)
	a.ui.pretty = true
	c := newChecker(a, checkOptions{}, nil, nil, nil)
	results := []checked{{Result: hive.Result{Node: "on", Outcome: hive.Online, Took: 12 * time.Millisecond}, status: registry.StatusOnline}}
	for i := range 7 {
		name := fmt.Sprint("off-", i)
		results = append(results, checked{
			Result: hive.Result{Node: name, At: name, Outcome: hive.TimedOut, Err: &hive.Error{Node: name, Err: hive.ErrTimeout}},
			status: registry.StatusOffline,
		})
	}
	jump := &hive.Error{Node: "jump", Err: fmt.Errorf("%w: a\nb", hive.ErrRefused)}
	results = append(results, checked{Result: hive.Result{Node: "behind", At: "jump", Outcome: hive.Refused, Err: jump}, status: registry.StatusOffline})
	if err := c.show(results); err != nil {
		t.Fatal(err)
	}
	a.ui.flush()
	for _, want := range []string{
		"NODE    OUTCOME    STATUS   TOOK  CAUSE\n",
		"on      online     online   12ms  -\n",
		"off-6   timed out  offline  0s    timed out\n",
		`behind  refused    offline  0s    connect to "jump": connection refused: a; b` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for _, want := range []string{"timed out: off-0, off-1, off-2, off-3, off-4 and 2 more\n  ", "refused: jump\n", "node show jump\n"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not in\n%s", want, errs.String())
		}
	}
}

// TestOutcomeHints: every outcome but online has a next step.
func TestOutcomeHints(t *testing.T) {
	for _, err := range []error{
		hive.ErrUnreachable, hive.ErrRefused, hive.ErrTimeout, hive.ErrHostKeyUnknown, hive.ErrHostKeyChanged,
		hive.ErrNoKey, hive.ErrPermission, hive.ErrBusy, hive.ErrProtocol,
	} {
		o, ok := hive.OutcomeOf(err)
		if !ok || outcomeHints[o] == "" {
			t.Errorf("%v: %q has no hint", err, o)
		}
	}
}

// TestFirstContact: only an unknown key of a node without pins is at first contact, also
// where the pins went away between the login and a look at them.
func TestFirstContact(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		outcome hive.Outcome
		key     ssh.PublicKey
		pinned  []registry.HostKey
		want    bool
	}{
		{hive.HostKeyUnknown, key, nil, true},
		{hive.HostKeyUnknown, key, []registry.HostKey{{Type: ssh.KeyAlgoRSA}}, false},
		{hive.HostKeyChanged, key, nil, false},
		{hive.HostKeyChanged, key, []registry.HostKey{{Type: ssh.KeyAlgoED25519}}, false},
		{hive.HostKeyUnknown, nil, nil, false},
	} {
		r := checked{Result: hive.Result{Outcome: row.outcome, Key: row.key}, pinned: row.pinned}
		if got := r.firstContact(); got != row.want {
			t.Errorf("%s with %d pins: %v", row.outcome, len(row.pinned), got)
		}
	}
}
