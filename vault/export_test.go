package vault

import (
	"context"
	"io/fs"
	"runtime"
	"time"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/digest"
	"github.com/rbee-keeper/rbee-vault/internal/rootkey"
)

// WithMigrations gives tests a schema that the program does not have yet.
func (c Config) WithMigrations(migrations fs.FS) Config {
	c.migrations = migrations
	return c
}

// WithCheapPassphrases gives tests passphrase slots that take no time.
func (c Config) WithCheapPassphrases() Config {
	c.workFactor = 10
	return c
}

// OnNetworkFS pretends that the vault is on a network file system of that name.
func (c Config) OnNetworkFS(name string) Config {
	c.networkFS = func(string) (string, error) { return name, nil }
	return c
}

// WithAnchorDelay makes the keyring's anchor follow sooner.
func (c Config) WithAnchorDelay(d time.Duration) Config {
	c.anchorAfter = d
	return c
}

// WithShareTime lets callers of Update join a commit for longer.
func (c Config) WithShareTime(d time.Duration) Config {
	c.shareFor = d
	return c
}

// AwaitCallers waits until so many callers of Update wait for the baton.
func (v *Vault) AwaitCallers(n int) {
	for v.waiting() < n {
		time.Sleep(time.Millisecond)
	}
}

func (v *Vault) waiting() int {
	v.baton.mu.Lock()
	defer v.baton.mu.Unlock()
	return len(v.baton.queue)
}

// AwaitCaller waits until one waits, or ctx ends.
func (v *Vault) AwaitCaller(ctx context.Context) {
	for v.waiting() == 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
}

// MaxShared is how many changes share a commit at most.
const MaxShared = maxShared

// ByAnySigner opens a vault without a check of its signer.
func (c Config) ByAnySigner() Config {
	c.anySigner = true
	return c
}

// CreateForged makes a vault as an attacker can who knows a recipient: with an id and a vouch
// of the attacker's choice.
func CreateForged(ctx context.Context, cfg Config, recipient, vaultID, vouch string) error {
	p, err := newPaths(cfg.Path)
	if err != nil {
		return err
	}
	t := newTransition(cfg, p, rootkey.Generate(), false)
	if vaultID != "" {
		t.meta.VaultID = vaultID
	}
	t.meta.Class = identity.Classic
	t.slots = []Slot{newSlot(Slot{Kind: SlotRecipient, Recipient: recipient, vouch: vouch}, t.meta.Created)}
	t.fill = func(context.Context, *Tx) (Event, error) { return Event{Action: Action("vault.init")}, nil }
	return t.run(ctx)
}

// DigestedTables returns the tables that the digest covers.
func DigestedTables() map[string]bool {
	covered := map[string]bool{digest.SlotsTable().Name: true}
	for _, t := range digest.ContentTables() {
		covered[t.Name] = true
	}
	return covered
}

// Changing takes the write lock as one who does not share a commit.
func (v *Vault) Changing(ctx context.Context) error {
	return v.changing(ctx, func() error { return nil })
}
