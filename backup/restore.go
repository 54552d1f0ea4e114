package backup

import (
	"context"
	"fmt"
	"io"

	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Verify reads a whole backup and writes nothing. It returns the manifest if the
// file is undamaged and opts.Trust accepts its signer.
//
// Errors: [ErrDamaged], [ErrUntrusted], [vault.ErrNoUnlockMethod] without an identity,
// [vault.ErrWrongKey], [vault.ErrNewer], and the errors of opts.Trust.
func Verify(ctx context.Context, r io.Reader, opts ReadOptions) (Manifest, error) {
	m, err := read(ctx, r, opts, nil, discard{opts.AuditRow})
	if err != nil {
		return Manifest{}, fmt.Errorf("verify backup: %w", err)
	}
	return m, nil
}

// discard is the sink of Verify. It keeps nothing.
type discard struct{ row func(vault.AuditRow) }

var _ sink = discard{}

func (discard) node(context.Context, registry.Node) error               { return nil }
func (discard) sshKey(context.Context, registry.SSHKey, []byte) error   { return nil }
func (discard) keyRotation(context.Context, registry.KeyRotation) error { return nil }
func (discard) hostKey(context.Context, registry.HostKey) error         { return nil }
func (discard) target(context.Context, Target) error                    { return nil }
func (discard) setting(context.Context, registry.Setting) error         { return nil }
func (d discard) auditRow(_ context.Context, r vault.AuditRow) error {
	if d.row != nil {
		d.row(r)
	}
	return nil
}
func (discard) slots(context.Context, []vault.Slot) error { return nil }

// RestoreOptions says how a vault is made from a backup.
type RestoreOptions struct {
	ReadOptions
	// NoKeyring, Replace, DryRun and ConfirmUnproven are as in [vault.RestoreOptions].
	NoKeyring       bool
	Replace         bool
	DryRun          bool
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
		DryRun:          opts.DryRun,
		ConfirmUnproven: opts.ConfirmUnproven,
		Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
			b, read, err := fill(ctx, tx, r, opts.ReadOptions, cfg.Plugins)
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
func fill(ctx context.Context, tx *vault.Tx, r io.Reader, opts ReadOptions, plugins *plugin.ClientUI) (b vault.Backup, m Manifest, err error) {
	s := newStage(ctx, tx)
	err = s.fill(func() (err error) {
		m, err = read(ctx, r, opts, plugins, s)
		return err
	})
	if err != nil {
		return vault.Backup{}, Manifest{}, err
	}
	return vault.Backup{
		Slots:         s.kept,
		OriginVaultID: m.VaultID,
		OriginSigner:  m.Signer,
		Detail:        fmt.Sprintf("backup %d of %s", m.Sequence, m.Created),
	}, m, nil
}
