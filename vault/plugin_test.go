package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/plugintest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// hanging is the test plugin behind a script. The script counts its calls, and hangs in chosen
// calls.
type hanging struct{ dir string }

func installHanging(t *testing.T) hanging {
	t.Helper()
	plugin := filepath.Join(plugintest.Install(t), "age-plugin-rbeetest")
	h := hanging{t.TempDir()}
	script := fmt.Sprintf(`#!/bin/sh
n=$(($(ls %[1]s/calls | wc -l) + 1))
: > %[1]s/calls/$n
while [ -e %[1]s/hang-$n ]; do sleep 0.01; done
exec %[2]s "$@"
`, h.dir, plugin)
	if err := os.Mkdir(filepath.Join(h.dir, "calls"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "age-plugin-rbeetest"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", h.dir+":"+os.Getenv("PATH"))
	return h
}

// hang makes a later call hang until the test ends or release is called. call is counted from
// the last call.
func (h hanging) hang(t *testing.T, call int) (path string) {
	t.Helper()
	path = filepath.Join(h.dir, fmt.Sprintf("hang-%d", h.calls()+call))
	write(t, path, nil)
	t.Cleanup(func() { os.Remove(path) })
	return path
}

func (h hanging) calls() int {
	entries, _ := os.ReadDir(filepath.Join(h.dir, "calls"))
	return len(entries)
}

// await waits until the plugin is in that call, counted as in hang.
func (h hanging) await(t *testing.T, calls int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); h.calls() < calls; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the plugin is not called")
		}
	}
}

// TestHungPluginEnds: a call ends with its context.
func TestHungPluginEnds(t *testing.T) {
	h := installHanging(t)
	key := plugintest.NewKey(t, false)
	v := vaulttest.New(t)
	for name, call := range map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error {
			cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "b.db")}
			_, err := vault.Create(ctx, cfg, vault.CreateOptions{Recipients: []string{key.Recipient}})
			if exists(cfg.Path) {
				t.Error("there is a vault")
			}
			return err
		},
		"AddSlot": func(ctx context.Context) error {
			_, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: key.Recipient})
			return err
		},
		"Recipients": func(ctx context.Context) error {
			return v.View(ctx, func(tx *vault.Tx) error {
				_, err := tx.Recipients(ctx, key.Recipient)
				return err
			})
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		n := h.calls()
		h.hang(t, 1)
		ended := make(chan error)
		go func() { ended <- call(ctx) }()
		h.await(t, n+1)
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s does not end with its context", name)
		}
	}
}

// TestHungIdentityPlugin: an open by a plugin that hangs ends with its context.
func TestHungIdentityPlugin(t *testing.T) {
	h := installHanging(t)
	key := plugintest.NewKey(t, false)
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(t), "b.db")}
	if _, err := vault.Create(t.Context(), cfg, vault.CreateOptions{Recipients: []string{key.Recipient}}); err != nil {
		t.Fatal(err)
	}
	identity, err := plugin.NewIdentity(key.Identity, &plugin.ClientUI{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Identities = []age.Identity{identity}
	ctx, cancel := context.WithCancel(t.Context())
	n := h.calls()
	h.hang(t, 1)
	ended := make(chan error)
	go func() {
		_, err := vault.Open(ctx, cfg)
		ended <- err
	}()
	h.await(t, n+1)
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end with its context")
	}
}

// pluginVault makes a vault with a slot of the plugin, and one of an identity.
func pluginVault(t *testing.T, key plugintest.Key) (vault.Config, *vault.Vault) {
	t.Helper()
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: key.Recipient}); err != nil {
		t.Fatal(err)
	}
	return cfg, v
}

// TestRotateCallsPluginsBeforeItLocks: a plugin that hangs during a rotation blocks nobody. A
// slot that is added meanwhile gets the new key.
func TestRotateCallsPluginsBeforeItLocks(t *testing.T) {
	h := installHanging(t)
	cfg, v := pluginVault(t, plugintest.NewKey(t, false))
	n := h.calls()
	hung := h.hang(t, 1)
	rotated := make(chan error, 1)
	go func() {
		_, err := v.Rotate(t.Context())
		rotated <- err
	}()
	h.await(t, n+1)
	if out, err := child("write", childSpec(cfg, "child", "1")).Output(); err != nil || string(out) != "child-0\n" {
		t.Errorf("another process beside a plugin that hangs: %q, %v", out, err)
	}
	later := newIdentity(t)
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: later.Recipient().String()}); err != nil {
		t.Errorf("beside a plugin that hangs: %v", err)
	}
	os.Remove(hung)
	if err := <-rotated; err != nil {
		t.Fatal(err)
	}
	if m, slots := slotsOf(t, v); m.Generation != 2 || len(slots) != 3 {
		t.Errorf("generation %d, %d slots", m.Generation, len(slots))
	}
	v.Close()
	cfg.Identities, cfg.ConfirmSigner = []age.Identity{later}, vaulttest.AcceptSigner
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("by the slot that was added: %v", err)
	}
	// There is one call for each plan, and none under the lock.
	if got := h.calls() - n; got != 2 {
		t.Errorf("%d calls of the plugin, want 2", got)
	}
}

// TestAddSlotCallsPluginsBeforeItLocks: others can write meanwhile. If a rotation comes
// between, the new key is wrapped.
func TestAddSlotCallsPluginsBeforeItLocks(t *testing.T) {
	h := installHanging(t)
	key := plugintest.NewKey(t, false)
	cfg := vaulttest.Config(t)
	cfg.Wait = 5 * time.Second
	v := vaulttest.Open(t, cfg)
	n := h.calls()
	hung := h.hang(t, 2) // the first call finds out the class
	added := make(chan error, 1)
	go func() {
		_, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: key.Recipient})
		added <- err
	}()
	h.await(t, n+2)
	if err := v.Update(t.Context(), func(tx *vault.Tx) error { return addNode(t.Context(), tx, "hive-01") }); err != nil {
		t.Errorf("a write beside a plugin that hangs: %v", err)
	}
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Errorf("a rotation beside a plugin that hangs: %v", err)
	}
	os.Remove(hung)
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	v.Close()
	identity, err := plugin.NewIdentity(key.Identity, &plugin.ClientUI{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Identities, cfg.ConfirmSigner = []age.Identity{identity}, vaulttest.AcceptSigner
	if err := openAndClose(t.Context(), cfg); err != nil {
		t.Errorf("by the plugin: %v", err)
	}
}

// cancellingFS calls cancel, if it is set, when a directory is flushed.
type cancellingFS struct {
	durable.FS
	cancel atomic.Pointer[context.CancelFunc]
}

func (f *cancellingFS) SyncDir(dir string) error {
	if cancel := f.cancel.Load(); cancel != nil {
		(*cancel)()
	}
	return f.FS.SyncDir(dir)
}

// TestRotateCancelledAfterSlotAdded: a slot is added while a rotation is planned, and the context
// ends during the attempt. So there is no second plan, and the vault has its old key.
func TestRotateCancelledAfterSlotAdded(t *testing.T) {
	h := installHanging(t)
	cfg := vaulttest.Config(t)
	fsys := &cancellingFS{FS: durable.OS{}}
	cfg.FS = fsys
	v := vaulttest.Open(t, cfg)
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: plugintest.NewKey(t, false).Recipient}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := h.calls()
	hung := h.hang(t, 1)
	rotated := make(chan error, 1)
	go func() {
		_, err := v.Rotate(ctx)
		rotated <- err
	}()
	h.await(t, n+1)
	if _, err := v.AddSlot(t.Context(), vault.NewSlot{Kind: vault.SlotRecipient, Recipient: newIdentity(t).Recipient().String()}); err != nil {
		t.Fatal(err)
	}
	fsys.cancel.Store(&cancel) // the attempt flushes the directory before it sees the slot
	os.Remove(hung)
	if err := <-rotated; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if m, slots := slotsOf(t, v); m.Generation != 1 || len(slots) != 3 {
		t.Errorf("generation %d, %d slots", m.Generation, len(slots))
	}
}
