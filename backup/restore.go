package backup

import (
	"context"
	"fmt"
	"io"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Verify reads a whole backup and writes nothing. It returns the manifest if the
// file is undamaged and opts.Trust accepts its signer.
//
// Errors: [ErrDamaged], [ErrUntrusted], [vault.ErrNoUnlockMethod] without an identity,
// [vault.ErrWrongKey], [vault.ErrNewer], and the errors of opts.Trust.
func Verify(ctx context.Context, r io.Reader, opts ReadOptions) (Manifest, error) {
	m, err := read(ctx, r, opts, discard{opts.AuditRow})
	if err != nil {
		return Manifest{}, fmt.Errorf("verify backup: %w", err)
	}
	return m, nil
}

// discard is the sink of Verify. It refuses what a restore would refuse, and keeps
// nothing.
type discard struct{ row func(vault.AuditRow) }

func (discard) node(_ context.Context, n registry.Node) error { return n.Validate() }
func (discard) sshKey(_ context.Context, k registry.SSHKey, private []byte) error {
	return k.Matches(private)
}
func (discard) keyRotation(_ context.Context, k registry.KeyRotation) error { return k.Validate() }
func (discard) hostKey(_ context.Context, k registry.HostKey) error         { return k.Validate() }
func (discard) target(context.Context, Target) error                        { return nil }
func (d discard) auditRow(_ context.Context, r vault.AuditRow) error {
	if d.row != nil {
		d.row(r)
	}
	return nil
}
func (discard) slot(_ context.Context, s vault.Slot) error {
	_, err := identity.ParseRecipient(s.Recipient, nil)
	return err
}

// RestoreOptions says how a vault is made from a backup.
type RestoreOptions struct {
	ReadOptions
	// NoKeyring, Replace and ConfirmUnproven are as in [vault.RestoreOptions].
	NoKeyring       bool
	Replace         bool
	ConfirmUnproven func(context.Context, vault.UnprovenVault) error
}

// Restored describes a restored vault.
type Restored struct {
	vault.RestoredVault
	Manifest Manifest
}

// Restore makes a new vault at cfg.Path from a backup. The vault has the backup's
// recipients, and an id, a key and a signing key of its own. The whole backup is
// staged and verified before anything is put in place: after any error the target
// is unchanged.
//
// Errors: those of [Verify] and of [vault.Restore].
func Restore(ctx context.Context, cfg vault.Config, r io.Reader, opts RestoreOptions) (Restored, error) {
	var m Manifest
	done, err := vault.Restore(ctx, cfg, vault.RestoreOptions{
		NoKeyring:       opts.NoKeyring,
		Replace:         opts.Replace,
		ConfirmUnproven: opts.ConfirmUnproven,
		Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
			b, read, err := fill(ctx, tx, r, opts.ReadOptions)
			m = read
			return b, err
		},
	})
	if err != nil {
		return Restored{}, fmt.Errorf("restore backup: %w", err)
	}
	return Restored{RestoredVault: done, Manifest: m}, nil
}

// fill writes the rows of a backup into a new database. When it returns no error, the whole
// backup is verified.
func fill(ctx context.Context, tx *vault.Tx, r io.Reader, opts ReadOptions) (vault.Backup, Manifest, error) {
	s := &stage{tx: tx}
	m, err := read(ctx, r, opts, s)
	if err != nil {
		return vault.Backup{}, Manifest{}, err
	}
	return vault.Backup{
		Slots:         s.slots,
		OriginVaultID: m.VaultID,
		OriginSigner:  m.Signer,
		Detail:        fmt.Sprintf("backup %d of %s", m.Sequence, m.Created),
	}, m, nil
}

// stage is the sink of Restore. It writes to the new database and collects the
// slots.
type stage struct {
	tx    *vault.Tx
	slots []vault.Slot
}

func (s *stage) node(ctx context.Context, n registry.Node) error {
	return registry.InsertNode(ctx, s.tx, n)
}

func (s *stage) sshKey(ctx context.Context, k registry.SSHKey, private []byte) error {
	return registry.InsertSSHKey(ctx, s.tx, k, private)
}

func (s *stage) keyRotation(ctx context.Context, k registry.KeyRotation) error {
	return registry.InsertKeyRotation(ctx, s.tx, k)
}

func (s *stage) hostKey(ctx context.Context, k registry.HostKey) error {
	return registry.InsertHostKey(ctx, s.tx, k)
}

func (s *stage) target(ctx context.Context, t Target) error {
	return insertTarget(ctx, s.tx, t)
}

func (s *stage) auditRow(ctx context.Context, r vault.AuditRow) error {
	return s.tx.AppendAuditRow(ctx, r)
}

func (s *stage) slot(_ context.Context, slot vault.Slot) error {
	s.slots = append(s.slots, slot)
	return nil
}
