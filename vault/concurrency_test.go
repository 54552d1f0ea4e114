package vault_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// childSpec is what a child gets: path, identity, and what else it needs.
func childSpec(cfg vault.Config, more ...string) string {
	identity := cfg.Identities[0].(*age.X25519Identity).String()
	return strings.Join(append([]string{cfg.Path, identity}, more...), "|")
}

func childVault(arg string) (*vault.Vault, []string) {
	f := strings.Split(arg, "|")
	identity, err := age.ParseX25519Identity(f[1])
	if err != nil {
		panic(err)
	}
	v, err := vault.Open(context.Background(), vault.Config{Path: f[0], Identities: []age.Identity{identity}, ConfirmSigner: vaulttest.AcceptSigner, Wait: time.Minute})
	if err != nil {
		panic(err)
	}
	return v, f[2:]
}

// writeChild writes rows of 16 KiB. It prints the name of each row after its commit.
func writeChild(arg string) {
	v, more := childVault(arg)
	rounds, _ := strconv.Atoi(more[1])
	ctx := context.Background()
	padding := strings.Repeat("x", 16<<10)
	for i := range rounds {
		name := fmt.Sprintf("%s-%d", more[0], i)
		err := v.Update(ctx, func(tx *vault.Tx) error {
			if err := insertNode(ctx, tx, name); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE beehives SET install_path = ? WHERE node_name = ?`, padding, name); err != nil {
				return err
			}
			return tx.Audit(ctx, vault.Event{Action: vault.Action("node.add"), Subject: name})
		})
		if err != nil {
			panic(err)
		}
		fmt.Println(name)
	}
	if err := v.Close(); err != nil {
		panic(err)
	}
}

// checkRows opens the vault and checks that it has every committed row.
func checkRows(t *testing.T, cfg vault.Config, acknowledged []string) {
	t.Helper()
	v := vaulttest.Open(t, cfg)
	if err := v.CheckPages(t.Context()); err != nil {
		t.Error(err)
	}
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for _, name := range acknowledged {
			var n int
			if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM beehives WHERE node_name = ?`, name).Scan(&n); err != nil {
				return err
			}
			if n != 1 {
				t.Errorf("acknowledged row %s is lost", name)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestTwoProcessesWriteAndCheckpoint writes enough for many checkpoints, while the other
// process writes too.
func TestTwoProcessesWriteAndCheckpoint(t *testing.T) {
	const rounds = 600 // 2 x 600 x 16 KiB: the log passes its limit over four times
	cfg := vaulttest.Config(t)
	var wg sync.WaitGroup
	acknowledged := make([][]string, 2)
	for i := range acknowledged {
		cmd := child("write", childSpec(cfg, fmt.Sprintf("writer-%d", i), strconv.Itoa(rounds)))
		lines := start(t, cmd)
		wg.Go(func() {
			for lines.Scan() {
				acknowledged[i] = append(acknowledged[i], lines.Text())
			}
		})
	}
	wg.Wait()
	all := append(acknowledged[0], acknowledged[1]...)
	if len(all) != 2*rounds {
		t.Errorf("%d rows acknowledged, want %d", len(all), 2*rounds)
	}
	checkRows(t, cfg, all)
}

// TestKilledWriters: a SIGKILL of one of two writers loses no committed row.
func TestKilledWriters(t *testing.T) {
	cfg := vaulttest.Config(t)
	var all []string
	for round := range 8 {
		var wg sync.WaitGroup
		acknowledged := make([][]string, 2)
		for i := range acknowledged {
			cmd := child("write", childSpec(cfg, fmt.Sprintf("round-%d-%d", round, i), "1000"))
			lines := start(t, cmd)
			wg.Go(func() {
				for lines.Scan() {
					acknowledged[i] = append(acknowledged[i], lines.Text())
					if len(acknowledged[i]) == 10+17*round+5*i {
						cmd.Process.Kill()
					}
				}
			})
		}
		wg.Wait()
		all = append(append(all, acknowledged[0]...), acknowledged[1]...)
		checkRows(t, cfg, all)
	}
	t.Logf("%d rows acknowledged by writers that were killed", len(all))
}

// stillChild holds the write lock and compares the database file before and after. It may read
// the file, because it has no connection of its own.
func stillChild(arg string) {
	ctx := context.Background()
	lock := durable.NewLock(arg + ".write")
	if err := lock.Exclusive(ctx); err != nil {
		panic(err)
	}
	sum := func() [32]byte {
		data, err := os.ReadFile(arg)
		if err != nil {
			panic(err)
		}
		return sha256.Sum256(data)
	}
	before := sum()
	fmt.Println("holding")
	var line string
	fmt.Scanln(&line) // until the parent says
	if sum() == before {
		fmt.Println("still")
	} else {
		fmt.Println("changed")
	}
	lock.Unlock()
}

// TestNoCheckpointOutsideTheLock: in WAL mode only a checkpoint writes to the database file.
// While another process holds the write lock, the file must not change, whatever readers and a
// writer do.
func TestNoCheckpointOutsideTheLock(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 200 * time.Millisecond
	v := vaulttest.Open(t, cfg)
	ctx := t.Context()
	insert := func(name string) error {
		return v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, name) })
	}
	if err := insert("hive-01"); err != nil { // there is a log to fold in
		t.Fatal(err)
	}
	cmd := child("still", cfg.Path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines := start(t, cmd)
	if !lines.Scan() || lines.Text() != "holding" {
		t.Fatal("the child does not hold the lock")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				err := v.View(ctx, func(tx *vault.Tx) error {
					var n int
					return tx.QueryRowContext(ctx, `SELECT count(*) FROM beehives`).Scan(&n)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := insert("hive-02"); !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("a write beside the lock: %v, want ErrLocked that names pid %d", err, cmd.Process.Pid)
	}
	if err := v.CheckPages(ctx); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("a checkpoint beside the lock: %v, want ErrLocked", err)
	}
	wg.Wait()
	fmt.Fprintln(in, "enough")
	if !lines.Scan() || lines.Text() != "still" {
		t.Errorf("the database file: %q, want still", lines.Text())
	}
	for lines.Scan() { // until it has given the lock back
	}
	if err := insert("hive-02"); err != nil {
		t.Error(err)
	}
}

// holdChild keeps the vault open until it is killed.
func holdChild(arg string) {
	childVault(arg)
	fmt.Println("open")
	select {}
}

func TestAnotherProcessHasItOpen(t *testing.T) {
	cfg := vaulttest.Config(t)
	cmd := child("hold", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	vaulttest.Open(t, cfg).Close() // several processes may have it open
	cfg.Wait = 50 * time.Millisecond
	_, err := vault.Restore(t.Context(), cfg, vault.RestoreOptions{Replace: true})
	if !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("replace: %v, want ErrLocked that names pid %d", err, cmd.Process.Pid)
	}
}

func TestUpdateThatFailsChangesNothing(t *testing.T) {
	v := vaulttest.New(t)
	ctx := t.Context()
	count := func() (n int) {
		err := v.View(ctx, func(tx *vault.Tx) error {
			return tx.QueryRowContext(ctx, `SELECT count(*) FROM beehives`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	broken := errors.New("broken")
	err := v.Update(ctx, func(tx *vault.Tx) error { return errors.Join(insertNode(ctx, tx, "a"), broken) })
	if !errors.Is(err, broken) || count() != 0 {
		t.Errorf("error %v, %d rows", err, count())
	}
	func() {
		defer func() { recover() }()
		v.Update(ctx, func(tx *vault.Tx) error {
			insertNode(ctx, tx, "a")
			panic("in the middle")
		})
	}()
	if count() != 0 {
		t.Error("a panic left a row")
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := v.Update(canceled, func(tx *vault.Tx) error { return insertNode(ctx, tx, "a") }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := v.View(ctx, func(tx *vault.Tx) error { return insertNode(ctx, tx, "a") }); err == nil || count() != 0 {
		t.Error("a View could write")
	}
	if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "a") }); err != nil || count() != 1 {
		t.Errorf("afterwards: %v, %d rows", err, count())
	}
}

// TestNothingInPlaintext looks for the written texts in every file beside an open vault,
// including the log.
func TestNothingInPlaintext(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	ctx := t.Context()
	if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "planted-name") }); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".slots"} {
		// Another process copies the files: reading them here would drop our locks.
		data, err := copyOut(t, cfg.Path+suffix)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			t.Errorf("%q is empty", suffix)
		}
		if bytes.Contains(data, []byte("planted")) {
			t.Errorf("%q holds plaintext", suffix)
		}
	}
}

// slotChild adds and removes a slot until it is killed.
func slotChild(arg string) {
	v, _ := childVault(arg)
	fmt.Println("open")
	ctx := context.Background()
	for {
		s, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
		if err == nil {
			err = v.RemoveSlot(ctx, s.ID)
		}
		if err != nil {
			panic(err)
		}
	}
}

// TestOpenWhileSlotsChange: an open may read the table before a change and the slots file after
// it. It must not take that for an older copy.
func TestOpenWhileSlotsChange(t *testing.T) {
	cfg := vaulttest.Config(t)
	cmd := child("slots", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	for range 400 {
		v, err := vault.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
