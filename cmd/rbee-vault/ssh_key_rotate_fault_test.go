package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// faulty makes each operation of a rotation a step.
type faulty struct {
	*faulttest.Steps
	store rotationStore
	hosts rotationHosts
}

func (f faulty) BeginKeyRotation(ctx context.Context, node string) (k registry.KeyRotation, err error) {
	err = f.Do("begin", func() (err error) { k, err = f.store.BeginKeyRotation(ctx, node); return err })
	return k, err
}

func (f faulty) SwitchKeyRotation(ctx context.Context, node string) error {
	return f.Do("switch", func() error { return f.store.SwitchKeyRotation(ctx, node) })
}

func (f faulty) SaveKeyRotations(ctx context.Context, nodes ...string) error {
	return f.Do("save", func() error { return f.store.SaveKeyRotations(ctx, nodes...) })
}

func (f faulty) EndKeyRotation(ctx context.Context, node string) (users []string, err error) {
	err = f.Do("end", func() (err error) { users, err = f.store.EndKeyRotation(ctx, node); return err })
	return users, err
}

func (f faulty) authorize(ctx context.Context, k registry.KeyRotation) error {
	return f.Do("authorize", func() error { return f.hosts.authorize(ctx, k) })
}

func (f faulty) login(ctx context.Context, node, fingerprint string) error {
	var answer error // a refused login is an answer too
	if err := f.Do("login", func() error { answer = f.hosts.login(ctx, node, fingerprint); return nil }); err != nil {
		return err
	}
	return answer
}

func (f faulty) deauthorize(ctx context.Context, k registry.KeyRotation) (removed bool, err error) {
	err = f.Do("deauthorize", func() (err error) { removed, err = f.hosts.deauthorize(ctx, k); return err })
	return removed, err
}

// rotate rotates the key of a node in this process, with a fault, and reports whether the
// node is done.
func (f rotationFleet) rotate(node string, steps *faulttest.Steps) (done bool) {
	f.Helper()
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		a := &app{}
		a.ui = newUI(ctx, a, new(bytes.Buffer), new(bytes.Buffer))
		hosts := newNodeKeys(r)
		defer hosts.close()
		fault := faulty{steps, r, hosts}
		k := keyRotator{
			store: fault,
			hosts: fault,
			backup: func(ctx context.Context) error {
				return steps.Do("backup", func() error { return a.backupNewKeys(ctx, r) })
			},
			report: func(registry.KeyRotation, error) error { return nil },
		}
		failed, err := k.run(ctx, []string{node})
		done = failed == 0 && err == nil
	})
	return done
}

// TestSSHKeyRotateChild is the process that a fault kills. It is nothing by itself.
func TestSSHKeyRotateChild(t *testing.T) {
	job := strings.Fields(os.Getenv("RBEE_TEST_ROTATE"))
	if len(job) == 0 {
		return
	}
	at, err := strconv.Atoi(job[2])
	if err != nil {
		t.Fatal(err)
	}
	rotationFleet{T: t, db: job[0], recovery: job[1]}.rotate("hive-01", &faulttest.Steps{At: at, Fault: faulttest.KillAfter})
}

// killed rotates the key of hive-01 in a child that is killed after a step.
func (f rotationFleet) killed(step int) {
	f.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSSHKeyRotateChild$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("RBEE_TEST_ROTATE=%s %s %d", f.db, f.recovery, step))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.String() != "signal: killed" {
		f.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// faultFleet is a fleet of one node, and looks at it after a fault.
type faultFleet struct {
	rotationFleet
	keys    string // authorized_keys of hive-01
	options string // of its line there
}

func newFaultFleet(t *testing.T, options ...string) (f faultFleet, server sshdtest.Server) {
	t.Helper()
	f = faultFleet{rotationFleet: newRotationFleet(t), options: `from="127.0.0.1",no-pty`}
	f.expect(exitOK, "", "ssh-key", "generate", "--comment", "rbee@hive-01")
	server, f.keys = f.authorizedBy(options...)
	f.add("hive-01", "rbee@hive-01", f.options, server, f.keys)
	f.expect(exitOK, "", "backup")
	return f, server
}

// survives checks what holds after every fault: the key that the node uses in the vault opens
// it, and so does one in the last backup.
func (f faultFleet) survives(at string) {
	f.Helper()
	backups := f.backups()
	signers := f.signersIn(backups[len(backups)-1])
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		f.reachable(ctx, r, "hive-01")
		d := &hive.Dialer{Registry: r}
		conn, err := d.DialBy(ctx, "hive-01", func(context.Context, registry.Node) ([]ssh.AuthMethod, error) {
			return []ssh.AuthMethod{ssh.PublicKeys(signers...)}, nil
		})
		if err != nil {
			f.Errorf("no key in the last backup opens the node: %v", err)
		}
		conn.Close()
	})
	if f.Failed() {
		f.Fatalf("after %s", at)
	}
}

// signersIn returns the private keys in a backup.
func (f faultFleet) signersIn(backup string) (signers []ssh.Signer) {
	f.Helper()
	for _, text := range f.pemsIn(backup) {
		signer, err := ssh.ParsePrivateKey(text)
		if err != nil {
			f.Fatal(err)
		}
		signers = append(signers, signer)
	}
	return signers
}

// pemsIn returns the private keys in a backup as they stand there.
func (f rotationFleet) pemsIn(backup string) (pems [][]byte) {
	f.Helper()
	identities, err := age.ParseIdentities(strings.NewReader(f.read(f.recovery)))
	if err != nil {
		f.Fatal(err)
	}
	plain, err := age.Decrypt(strings.NewReader(f.read(backup)), identities...)
	if err != nil {
		f.Fatal(err)
	}
	unzipped, err := gzip.NewReader(plain)
	if err != nil {
		f.Fatal(err)
	}
	for members := tar.NewReader(unzipped); ; {
		member, err := members.Next()
		if err == io.EOF {
			return pems
		}
		if err != nil {
			f.Fatal(err)
		}
		if strings.HasSuffix(member.Name, ".pem") {
			text, err := io.ReadAll(members)
			if err != nil {
				f.Fatal(err)
			}
			pems = append(pems, text)
		}
	}
}

// restores checks that a vault that is restored from the last backup opens the node.
func (f faultFleet) restores(at string) {
	f.Helper()
	backups := f.backups()
	f.with(f.restore(backups[len(backups)-1]), func(ctx context.Context, r *registry.Registry) {
		f.reachable(ctx, r, "hive-01")
	})
	if f.Failed() {
		f.Fatalf("after %s", at)
	}
}

// ends checks that the rotation is at its end, and that one key is left.
func (f faultFleet) ends(at, before string) {
	f.Helper()
	f.rotated(f.db, "hive-01", f.keys, f.options, before)
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		if list, err := r.ListSSHKeys(ctx); err != nil || len(list) != 1 {
			f.Errorf("%d keys in the vault, %v", len(list), err)
		}
	})
	if f.Failed() {
		f.Fatalf("after %s", at)
	}
}

// key returns the key that the node uses.
func (f faultFleet) key() (fingerprint string) {
	f.Helper()
	f.with(f.db, func(ctx context.Context, r *registry.Registry) {
		key, err := r.NodeSSHKey(ctx, "hive-01")
		if err != nil {
			f.Fatal(err)
		}
		fingerprint = key.Fingerprint
	})
	return fingerprint
}

const rotationSteps = "begin authorize login switch backup save deauthorize deauthorize login end"

// TestSSHKeyRotateFaults fails a run before and after each of its steps, and kills it with
// SIGKILL after each, which is before the next.
func TestSSHKeyRotateFaults(t *testing.T) {
	f, _ := newFaultFleet(t)
	whole := &faulttest.Steps{}
	old := f.key()
	if !f.rotate("hive-01", whole) || strings.Join(whole.Names(), " ") != rotationSteps {
		t.Fatalf("a run did %s", whole.Names())
	}
	f.rotated(f.db, "hive-01", f.keys, f.options, old)
	for i, step := range whole.Names() {
		for _, fault := range []faulttest.Fault{faulttest.FailBefore, faulttest.FailAfter, faulttest.KillAfter} {
			at := fmt.Sprintf("%s: step %d, %s", fault, i+1, step)
			old, steps := f.key(), &faulttest.Steps{At: i + 1, Fault: fault}
			if fault.Kills() {
				f.killed(i + 1)
			} else if f.rotate("hive-01", steps) {
				t.Errorf("%s: the run says that the node is done", at)
			}
			f.survives(at)
			if fault.Kills() {
				f.restores(at)
				f.expect(exitOK, "accepts its new key only", "ssh-key", "rotate", "hive-01")
			} else if !f.rotate("hive-01", &faulttest.Steps{}) {
				t.Errorf("a rerun does not come to its end")
			}
			f.ends(at, old)
		}
	}
}

// TestSSHKeyRotateRestoredAmidst: a vault that is restored from a backup of the middle of a
// rotation, which the real one has ended meanwhile, goes on to the same key.
func TestSSHKeyRotateRestoredAmidst(t *testing.T) {
	f, _ := newFaultFleet(t)
	for i, step := range strings.Fields(rotationSteps) {
		if step != "authorize" && step != "save" {
			continue
		}
		old := f.key()
		f.rotate("hive-01", &faulttest.Steps{At: i + 1, Fault: faulttest.FailAfter})
		f.expect(exitOK, "", "backup")
		backups := f.backups()
		restored := f.restore(backups[len(backups)-1])
		f.expect(exitOK, "", "ssh-key", "rotate", "hive-01")
		now := f.rotated(f.db, "hive-01", f.keys, f.options, old)
		f.expect(exitOK, "", "ssh-key", "rotate", "hive-01", "--db", restored) // the node refuses the old key already
		if again := f.rotated(restored, "hive-01", f.keys, f.options, old); again != now {
			t.Errorf("the restored vault uses %s, and the vault %s", again, now)
		}
	}
}

// remoteFault is a node whose scripts do not come to their end. Each command that they call
// is a step.
type remoteFault struct {
	dir     string
	options []string // of its sshd
}

// newRemoteFault makes commands that do as DIR/fault says: "N shell" kills the shell that
// runs the script before its Nth command, "N session" the sshd that serves the login.
func newRemoteFault(t *testing.T) remoteFault {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "login"), "echo $$ >"+dir+"/shell\necho $PPID >"+dir+"/session\nexec $SSH_ORIGINAL_COMMAND\n")
	for _, name := range []string{"awk", "cksum", "cp", "find", "mkdir", "mv", "rm", "rmdir", "sync", "tail"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(bin, name), `n=$(($(/bin/cat `+dir+`/n) + 1))
echo $n >`+dir+`/n
read -r at what <`+dir+`/fault
if [ "$n" = "$at" ]; then
	read -r pid <`+dir+`/$what
	kill -9 "$pid"
	[ "$what" = session ] || exit 1
fi
exec `+path+` "$@"
`)
	}
	return remoteFault{dir, []string{"ForceCommand sh " + dir + "/login", "SetEnv PATH=" + bin + ":/usr/bin:/bin HOME=" + filepath.Join(dir, "home")}}
}

// set chooses the fault, and counts from 0 again; step 0 is none.
func (r remoteFault) set(t *testing.T, at int, what string) {
	t.Helper()
	for name, text := range map[string]string{"fault": fmt.Sprintf("%d %s\n", at, what), "n": "0\n"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// steps returns how many commands the node has run.
func (r remoteFault) steps(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "n"))
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	return n
}

// TestSSHKeyRotateRemoteFaults kills the script on the node, or the sshd that serves the
// login, before each command that the scripts run.
func TestSSHKeyRotateRemoteFaults(t *testing.T) {
	remote := newRemoteFault(t)
	f, _ := newFaultFleet(t, remote.options...)
	home := filepath.Join(remote.dir, "home") // sshd takes the first SetEnv only
	if err := os.Symlink(filepath.Dir(filepath.Dir(f.keys)), home); err != nil {
		t.Fatal(err)
	}
	remote.set(t, 0, "")
	old := f.key()
	if !f.rotate("hive-01", &faulttest.Steps{}) {
		t.Fatal("a run without faults does not come to its end")
	}
	f.rotated(f.db, "hive-01", f.keys, f.options, old)
	total := remote.steps(t)
	if total < 20 {
		t.Fatalf("%d commands are counted", total)
	}
	for at := 1; at <= total; at++ {
		whats := []string{"shell"}
		if at%4 == 1 { // the script goes on to its end
			whats = append(whats, "session")
		}
		for _, what := range whats {
			old := f.key()
			before := f.read(f.keys)
			remote.set(t, at, what)
			f.rotate("hive-01", &faulttest.Steps{})
			remote.set(t, 0, "")
			f.unlock(before)
			when := fmt.Sprintf("the %s was killed before command %d of %d", what, at, total)
			t.Log(time.Now().Format(time.TimeOnly), when)
			f.survives(when)
			if !f.rotate("hive-01", &faulttest.Steps{}) {
				t.Errorf("a rerun does not come to its end")
			}
			f.ends(when, old)
		}
	}
}

// unlock lets two minutes go by on the node, where a script that was killed has left its lock.
// Every line of the file is whole.
func (f faultFleet) unlock(before string) {
	f.Helper()
	long := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(f.keys+".rbee-vault", long, long); err != nil && !os.IsNotExist(err) {
		f.Fatal(err)
	}
	lines := f.read(f.keys)
	for line := range strings.Lines(lines) {
		if !strings.HasPrefix(line, f.options+" ssh-ed25519 ") || !strings.HasSuffix(line, " rbee@hive-01\n") {
			f.Errorf("authorized_keys was\n%s\nand is\n%s", before, lines)
		}
	}
}

// TestSSHKeyRotateConnectionFaults cuts the connections to the node: each of them alone, and
// it with all later ones.
func TestSSHKeyRotateConnectionFaults(t *testing.T) {
	f, server := newFaultFleet(t)
	var n, at, onwards atomic.Int64
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
			i := n.Add(1)
			if first := at.Load(); i == first || first > 0 && i > first && onwards.Load() == 1 {
				conn.Close()
				continue
			}
			go func() {
				defer conn.Close()
				to, err := net.Dial("tcp", server.Addr())
				if err != nil {
					return
				}
				defer to.Close()
				go func() {
					defer to.Close()
					io.Copy(to, conn)
				}()
				io.Copy(conn, to)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f.expect(exitOK, "", "node", "update", "hive-01", "--ssh-port", port)
	f.expect(exitOK, "", "backup")
	f.rotate("hive-01", &faulttest.Steps{})
	total := n.Load()
	for i := int64(1); i <= total; i++ {
		for _, more := range []int64{0, 1} {
			old := f.key()
			n.Store(0)
			onwards.Store(more)
			at.Store(i)
			done := f.rotate("hive-01", &faulttest.Steps{})
			at.Store(0)
			if done && more == 1 {
				t.Errorf("connection %d of %d and all behind it were cut, and the node is done", i, total)
			}
			when := fmt.Sprintf("connection %d of %d was cut", i, total)
			f.survives(when)
			if !f.rotate("hive-01", &faulttest.Steps{}) && !done {
				t.Errorf("a rerun does not come to its end")
			}
			f.ends(when, old)
		}
	}
}
