package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newStatus(a *app) *cobra.Command {
	var sheet string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the vault is, how it opens and when it was last backed up",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), a, sheet) },
	}
	cmd.Flags().StringVar(&sheet, "sheet", "", "write a page that names the current signer to the new `FILE`")
	return cmd
}

type statusJSON struct {
	Path       string         `json:"path"`
	VaultID    string         `json:"vault_id"`
	KeyID      string         `json:"key_id"`
	Generation int64          `json:"generation"`
	Class      identity.Class `json:"class"`
	Schema     int64          `json:"schema"`
	Created    string         `json:"created"`
	KeyCreated string         `json:"key_created"`
	OpenedBy   vault.Source   `json:"opened_by"`
	Keyring    bool           `json:"keyring"`
	Slots      []vault.Slot   `json:"slots"`
	Nodes      int            `json:"nodes"`
	SSHKeys    int            `json:"ssh_keys"`
	HostKeys   int            `json:"host_keys"`
	Signer     signerJSON     `json:"signer"`
	Sheet      *string        `json:"sheet"`            // when a sheet with the signer was handed out
	Unanchored *string        `json:"unanchored_since"` // the oldest change that the keyring does not remember
	Origin     *originJSON    `json:"origin"`
	LastBackup *recordJSON    `json:"last_backup"`
	WALBytes   int64          `json:"wal_bytes"`
}

type originJSON struct {
	VaultID string     `json:"vault_id"`
	Signer  signerJSON `json:"signer"`
}

func runStatus(ctx context.Context, a *app, sheetFile string) error {
	page, err := newSheet(sheetFile)
	if err != nil {
		return err
	}
	var m vault.Meta
	var totals registry.Totals
	var last *backup.Record
	s := statusJSON{Schema: vault.SchemaVersion()}
	err = a.withRegistry(ctx, func(r *registry.Registry) error {
		v := r.Vault()
		if err := page.write(ctx, a, v); err != nil {
			return err
		}
		s.Path, s.OpenedBy = v.Path(), v.Source()
		err := v.View(ctx, func(tx *vault.Tx) (err error) {
			if m, err = tx.Meta(ctx); err != nil {
				return err
			}
			if s.Slots, err = tx.Slots(ctx); err != nil {
				return err
			}
			signers, err := tx.Signers(ctx)
			if err != nil {
				return err
			}
			if at := signers[len(signers)-1].Sheet; !at.IsZero() {
				text := wire.FormatTime(at)
				s.Sheet = &text
			}
			totals, err = registry.Counts(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		if last, err = lastBackup(ctx, v); err != nil {
			return err
		}
		if v.Source() == vault.FromKeyring {
			if state, err := v.Anchor(ctx); err == nil && !state.BehindSince.IsZero() {
				text := wire.FormatTime(state.BehindSince)
				s.Unanchored = &text
			}
		}
		if info, err := os.Stat(v.Path() + "-wal"); err == nil {
			s.WALBytes = info.Size()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.VaultID, s.KeyID, s.Generation, s.Class = m.VaultID, m.KeyID.String(), m.Generation, m.Class
	s.Created, s.KeyCreated, s.Keyring = wire.FormatTime(m.Created), wire.FormatTime(m.KeyCreated), m.Keyring
	s.Nodes, s.SSHKeys, s.HostKeys = totals.Nodes, totals.SSHKeys, totals.HostKeys
	s.Signer = newSignerJSON(m.Signer)
	if m.OriginVaultID != "" {
		s.Origin = &originJSON{m.OriginVaultID, newSignerJSON(m.OriginSigner)}
	}
	backupText := "never"
	if last != nil {
		state := last.File(false)
		record := newRecordJSON(*last, state)
		s.LastBackup = &record
		backupText = fmt.Sprintf("%s ago, %s (%s)", ago(a.now().Sub(last.Created)), last.Path, state)
	}
	if a.json {
		return a.ui.object(s)
	}
	pairs := [][2]string{
		{"vault", s.Path},
		{"vault id", s.VaultID},
		{"key id", fmt.Sprintf("%s (generation %d, made %s)", s.KeyID, s.Generation, m.KeyCreated.Format("2006-01-02"))},
		{"class", string(s.Class)},
		{"opened by", string(s.OpenedBy)},
	}
	if m.Keyring {
		pairs = append(pairs, [2]string{"opens by", "the OS keyring"})
	}
	for _, slot := range s.Slots {
		pairs = append(pairs, [2]string{"opens by", slotText(slot)})
	}
	pairs = append(pairs,
		[2]string{"holds", fmt.Sprintf("%d nodes, %d SSH keys, %d host keys", s.Nodes, s.SSHKeys, s.HostKeys)},
		[2]string{"signer", s.Signer.Fingerprint},
	)
	if s.Sheet == nil {
		pairs = append(pairs, [2]string{"sheet", "none names this signer yet: rbee-vault status --sheet FILE"})
	}
	if s.Unanchored != nil {
		pairs = append(pairs, [2]string{"not remembered", "by the keyring: what changed since " + *s.Unanchored})
	}
	if s.Origin != nil {
		pairs = append(pairs, [2]string{"restored from", fmt.Sprintf("vault %s, signer %s", s.Origin.VaultID, s.Origin.Signer.Fingerprint)})
	}
	pairs = append(pairs,
		[2]string{"last backup", backupText},
		[2]string{"log", fmt.Sprintf("%d bytes", s.WALBytes)},
	)
	a.ui.pairs(pairs)
	return nil
}

// lastBackup returns the newest backup that was completed, or nil.
func lastBackup(ctx context.Context, v *vault.Vault) (*backup.Record, error) {
	records, err := backup.List(ctx, v)
	if err != nil {
		return nil, err
	}
	for i := len(records) - 1; i >= 0; i-- {
		if records[i].Path != "" {
			return &records[i], nil
		}
	}
	return nil, nil
}
