package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// withKeys adds nodes with sealed keys to a vault.
func withKeys(t testing.TB, v *vault.Vault, names ...string) {
	t.Helper()
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		for _, name := range names {
			if err := insertNode(t.Context(), tx, name); err != nil {
				return err
			}
			if err := insertKey(t.Context(), tx, name); err != nil {
				return err
			}
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.add")})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// keysIn returns how many sealed keys can be opened.
func keysIn(ctx context.Context, v *vault.Vault) (n int, err error) {
	err = v.View(ctx, func(tx *vault.Tx) (err error) {
		n, err = checkKeys(ctx, tx)
		return err
	})
	return n, err
}

func TestRotate(t *testing.T) {
	cfg, k, identity := keyringVault(t)
	v := vaulttest.Open(t, cfg)
	withKeys(t, v, "hive-01", "hive-02")
	before, slotsBefore := slotsOf(t, v)
	line, err := k.Get(t.Context(), before.KeyID.String())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := v.PlanRotation(t.Context())
	if err != nil || plan.Generation != 2 || plan.Previous != before.KeyID {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	done, err := v.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The same handle continues.
	after, slots := slotsOf(t, v)
	if n, err := keysIn(t.Context(), v); n != 2 || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
	if done.Generation != 2 || done.KeyID != after.KeyID || done.Previous != before.KeyID || after.KeyID == before.KeyID {
		t.Errorf("%+v, after key id %s", done, before.KeyID)
	}
	if after.VaultID != before.VaultID || after.Signer == before.Signer || !after.Created.Equal(before.Created) || after.Generation != 2 || !after.Keyring || after.SlotsSeq != before.SlotsSeq {
		t.Errorf("%+v became %+v", before, after)
	}
	if fmt.Sprint(ids(slots)) != fmt.Sprint(ids(slotsBefore)) {
		t.Errorf("slots %v became %v", ids(slotsBefore), ids(slots))
	}
	if got := actions(t, v); got[len(got)-1] != "vault.rotate" {
		t.Errorf("audited: %v", got)
	}
	err = v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.Signer(t.Context()); err != nil {
			return err
		}
		_, err := tx.VerifyAudit(t.Context())
		return err
	})
	if err != nil {
		t.Error(err)
	}
	withKeys(t, v, "hive-03")
	if err := v.CheckPages(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
	withKeys(t, v, "hive-04")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	// The old key is nowhere any more, and opens nothing.
	if accounts, _ := k.Accounts(); len(accounts) != 2 {
		t.Errorf("items %v, want the key and the anchor", accounts)
	}
	if err := k.Set(t.Context(), before.KeyID.String(), line); err != nil {
		t.Fatal(err)
	}
	for _, way := range []vault.Config{cfg, {Path: cfg.Path, Identities: []age.Identity{identity}, ConfirmSigner: vaulttest.AcceptSigner}} {
		v := vaulttest.Open(t, way)
		if n, err := keysIn(t.Context(), v); n != 4 || err != nil {
			t.Errorf("%d keys, %v", n, err)
		}
		v.Close()
	}
}

// TestRotateBesideReaders: readers and writers of the same process wait, and none fails.
func TestRotateBesideReaders(t *testing.T) {
	cfg, _, _ := keyringVault(t)
	v := vaulttest.Open(t, cfg)
	withKeys(t, v, "hive-01", "hive-02", "hive-03")
	ctx, stop := context.WithCancel(t.Context())
	var reads, writes atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if n, err := keysIn(t.Context(), v); n != 3 || err != nil {
					t.Errorf("%d keys, %v", n, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			err := v.Update(t.Context(), func(tx *vault.Tx) error {
				_, err := tx.ExecContext(t.Context(), `UPDATE beehives SET last_connected_unix = ifnull(last_connected_unix, 0) + 1 WHERE node_name = 'hive-01'`)
				return err
			})
			if err != nil {
				t.Error(err)
				return
			}
			writes.Add(1)
		}
	})
	for range 10 {
		read, written := reads.Load(), writes.Load()
		if _, err := v.Rotate(t.Context()); err != nil {
			t.Error(err)
			break
		}
		for (reads.Load() == read || writes.Load() == written) && !t.Failed() {
			time.Sleep(time.Millisecond) // until they have continued with the new key
		}
	}
	stop()
	wg.Wait()
	var counted int64
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT last_connected_unix FROM beehives WHERE node_name = 'hive-01'`).Scan(&counted)
	})
	if err != nil || counted != writes.Load() {
		t.Errorf("%d writes are there, of %d: %v", counted, writes.Load(), err)
	}
	t.Logf("%d reads and %d writes beside 10 rotations", reads.Load(), writes.Load())
}

// TestRotateWaitsForReaders: a running read is not interrupted. If a read does not end, the key
// is not changed.
func TestRotateWaitsForReaders(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 100 * time.Millisecond
	v := vaulttest.Open(t, cfg)
	reading, enough := make(chan bool), make(chan bool)
	ended := make(chan error)
	go func() {
		ended <- v.View(t.Context(), func(tx *vault.Tx) error {
			close(reading)
			<-enough
			var n int
			return tx.QueryRowContext(t.Context(), `SELECT count(*) FROM beehives`).Scan(&n)
		})
	}()
	<-reading
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	if m, _ := slotsOf(t, v); m.Generation != 1 {
		t.Errorf("generation %d", m.Generation)
	}
	close(enough)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Rotate(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRotateBesideAnotherProcess: the rotation is refused with the name of the process, and
// this process continues as before; or the rotation waits until the other process has closed
// the vault.
func TestRotateBesideAnotherProcess(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	withKeys(t, v, "hive-01")
	v.Close()
	cmd := child("hold", childSpec(cfg))
	if lines := start(t, cmd); !lines.Scan() {
		t.Fatal("the child does not open the vault")
	}
	cfg.Wait = 100 * time.Millisecond
	v = vaulttest.Open(t, cfg)
	before := read(t, cfg.Path+".slots")
	_, err := v.Rotate(t.Context())
	if !errors.Is(err, vault.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%v, want ErrLocked that names pid %d", err, cmd.Process.Pid)
	}
	if n, err := keysIn(t.Context(), v); n != 1 || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
	if string(read(t, cfg.Path+".slots")) != string(before) {
		t.Error("the slots file was changed")
	}
	v.Close()
	cfg.Wait = time.Minute
	v = vaulttest.Open(t, cfg)
	rotated := make(chan error)
	go func() {
		_, err := v.Rotate(t.Context())
		rotated <- err
	}()
	for range 3 { // reads continue meanwhile
		if n, err := keysIn(t.Context(), v); n != 1 || err != nil {
			t.Errorf("%d keys, %v", n, err)
		}
	}
	cmd.Process.Kill()
	if err := <-rotated; err != nil {
		t.Error(err)
	}
	if m, _ := slotsOf(t, v); m.Generation != 2 {
		t.Errorf("generation %d", m.Generation)
	}
}

// TestRotateTriesTheLock: /proc/locks does not show every holder, such as one in another
// container, or another handle in this process. An attempt to take the lock does.
func TestRotateTriesTheLock(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Wait = 100 * time.Millisecond
	v := vaulttest.Open(t, cfg)
	other := durable.NewLock(cfg.Path + ".lock")
	if err := other.Shared(t.Context()); err != nil {
		t.Fatal(err)
	}
	if holders := durable.Holders(cfg.Path + ".lock"); len(holders) != 0 {
		t.Fatalf("it is seen: %v", holders)
	}
	if _, err := v.PlanRotation(t.Context()); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("plan: %v, want ErrLocked", err)
	}
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("rotate: %v, want ErrLocked", err)
	}
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	other.Unlock()
	if _, err := v.PlanRotation(t.Context()); err != nil {
		t.Errorf("plan: %v", err)
	}
	if m, _ := slotsOf(t, v); m.Generation != 1 {
		t.Error("a plan changed the key")
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Errorf("rotate: %v", err)
	}
}

// TestRotateRefuses: nothing changes, and the handle continues.
func TestRotateRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(cfg *vault.Config, k faulttest.Keyring)
		want   error
	}{
		"no keyring":              {func(cfg *vault.Config, _ faulttest.Keyring) { cfg.Keyring = nil }, keyring.ErrUnavailable},
		"a keyring that is away":  {func(cfg *vault.Config, _ faulttest.Keyring) { cfg.Keyring = answering{err: keyring.ErrLocked} }, keyring.ErrLocked},
		"one that knows all keys": {func(cfg *vault.Config, _ faulttest.Keyring) { cfg.Keyring = answering{value: "anything"} }, vault.ErrWrongKey},
		"a slots file that cannot be written": {func(cfg *vault.Config, k faulttest.Keyring) {
			os.Remove(cfg.Path + ".slots.part-x")
			cfg.FS = faulttest.FS{Steps: &faulttest.Steps{At: 1, Fault: faulttest.FailOnwards}}
		}, faulttest.ErrFault},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, k, identity := keyringVault(t)
			cfg.Identities, cfg.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
			test.change(&cfg, k)
			v := vaulttest.Open(t, cfg)
			m, _ := slotsOf(t, v)
			if _, err := v.Rotate(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if now, _ := slotsOf(t, v); now.KeyID != m.KeyID {
				t.Error("the key was changed")
			}
			v.Close()
			if entries := keyIDs(t, cfg.Path+".slots"); len(entries) != 1 {
				t.Errorf("entries of %v", entries)
			}
		})
	}
}

// TestRotateLooksAgain: a file that was put in place while the vault was open, or while the
// rotation waited, is checked before it gets a key.
func TestRotateLooksAgain(t *testing.T) {
	for _, withKeyring := range []bool{true, false} {
		cfg, k, _ := keyringVault(t)
		if !withKeyring {
			cfg = vaulttest.Config(t)
		}
		old := photograph(t, cfg)
		node(t, cfg, "later")
		v := vaulttest.Open(t, cfg)
		if n, err := keysIn(t.Context(), v); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		before := anchorOf(t, k)
		// An older copy of this database, with the same inode or another.
		if err := os.Remove(cfg.Path); err != nil {
			t.Fatal(err)
		}
		old("")
		if _, err := v.Rotate(t.Context()); err == nil {
			t.Error("an older copy was rotated")
		}
		if anchorOf(t, k) != before {
			t.Error("the anchor was moved")
		}
		if err := v.Update(t.Context(), func(*vault.Tx) error { return nil }); !errors.Is(err, vault.ErrClosed) {
			t.Errorf("the handle goes on: %v", err)
		}
	}
}

// TestRotateKnowsWhatItHasSeen: without a keyring, the rotation itself remembers how far the
// vault had come. So it notices that an older copy was written into the file while it waited.
func TestRotateKnowsWhatItHasSeen(t *testing.T) {
	cfg := vaulttest.Config(t)
	older := read(t, cfg.Path)
	node(t, cfg, "later")
	v := vaulttest.Open(t, cfg)
	if n, err := keysIn(t.Context(), v); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	held := durable.NewLock(cfg.Path + ".lock")
	if err := held.Shared(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := v.Rotate(t.Context())
		failed <- err
	}()
	for exists(cfg.Path + "-wal") { // until it has closed the database
		time.Sleep(time.Millisecond)
	}
	f, err := os.OpenFile(cfg.Path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(older)
	f.Close()
	held.Unlock()
	if err := <-failed; !errors.Is(err, vault.ErrRollback) {
		t.Errorf("an older copy was rotated: %v", err)
	}
}

// TestRotateTwice: two processes rotate, and the second one reports what happened.
func TestRotateTwice(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	withKeys(t, v, "hive-01")
	// This process finds the result of another process's rotation: another file and another
	// key.
	elsewhere := vaulttest.Config(t)
	other := vaulttest.Open(t, elsewhere)
	if _, err := other.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	other.Close()
	if err := os.Rename(elsewhere.Path, cfg.Path); err != nil {
		t.Fatal(err)
	}
	_, err := v.Rotate(t.Context())
	if !errors.Is(err, vault.ErrLocked) || errors.Is(err, vault.ErrDamaged) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v, want ErrLocked", err)
	}
}

// TestRotateUnsettled: if the slots file cannot be settled after the commit, the key is
// changed, and nothing may change the vault until it is settled.
func TestRotateUnsettled(t *testing.T) {
	cfg := vaulttest.Config(t)
	counted := &faulttest.Steps{}
	scout := cfg
	scout.FS = faulttest.FS{Steps: counted}
	v := vaulttest.Open(t, scout)
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Close()
	at := slices.Index(counted.Names(), "rename beehives.db") + 2
	cfg.FS = faulttest.FS{Steps: &faulttest.Steps{At: at, Fault: faulttest.FailOnwards}}
	v = vaulttest.Open(t, cfg)
	done, err := v.Rotate(t.Context())
	if err != nil || done.Generation != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := v.Update(t.Context(), func(*vault.Tx) error { return nil }); !errors.Is(err, vault.ErrUnsettled) {
		t.Errorf("%v, want ErrUnsettled", err)
	}
	if err := v.View(t.Context(), func(*vault.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	v.Close()
	cfg.FS = nil
	v = vaulttest.Open(t, cfg)
	if err := v.Update(t.Context(), func(*vault.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}

// TestRotateBesideOpens: another Open in this process, or a check of its pages, does not
// disturb it.
func TestRotateBesideOpens(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := vault.Open(t.Context(), cfg); !errors.Is(err, vault.ErrAlreadyOpen) {
				t.Errorf("%v, want ErrAlreadyOpen", err)
				return
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := v.CheckPages(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 10 {
		if _, err := v.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
}

// answering is a keyring that always returns the same answer.
type answering struct {
	value string
	err   error
}

func (a answering) Get(context.Context, string) (string, error) { return a.value, a.err }
func (a answering) GetAll(_ context.Context, accounts ...string) ([]string, error) {
	values := make([]string, len(accounts))
	for i := range values {
		values[i] = a.value
	}
	return values, a.err
}
func (a answering) Set(context.Context, string, string) error { return a.err }
func (a answering) Delete(context.Context, string) error      { return a.err }

// TestRotateReadOnly: a vault that was set aside has no key of its own to change.
func TestRotateReadOnly(t *testing.T) {
	cfg := vaulttest.Config(t)
	aside := cfg
	aside.Path += ".replaced-20260101T000000Z"
	for _, suffix := range []string{"", ".slots"} {
		write(t, aside.Path+suffix, read(t, cfg.Path+suffix))
	}
	v := vaulttest.Open(t, aside)
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient}); !errors.Is(err, vault.ErrReadOnly) {
		t.Errorf("%v, want ErrReadOnly", err)
	}
}

// TestRotateSeesAnotherDatabase: another database was put in place while the vault was open. It
// is not rotated, and it stays unchanged.
func TestRotateSeesAnotherDatabase(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	copied := read(t, cfg.Path)
	write(t, cfg.Path+".copy", copied)
	if err := os.Rename(cfg.Path+".copy", cfg.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Rotate(t.Context()); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("%v, want ErrLocked", err)
	}
	if string(read(t, cfg.Path)) != string(copied) {
		t.Error("the database in place was changed")
	}
	if err := v.View(t.Context(), func(*vault.Tx) error { return nil }); !errors.Is(err, vault.ErrClosed) {
		t.Errorf("afterwards: %v, want ErrClosed", err)
	}
}
