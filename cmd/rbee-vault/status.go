package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type statusOptions struct {
	sheet string
}

func (o *statusOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.sheet, "sheet", "", "write a sheet that names the current signer to the new `FILE`")
}

func newStatus(a *app) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the vault, its unlock methods, its contents and its last backup",
		RunE:  func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), a, o) },
	}
	o.register(cmd)
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
	Sheet      *string        `json:"sheet"`            // when a sheet with this signer was written
	Unanchored *string        `json:"unanchored_since"` // the oldest change that the high-water mark in the keyring does not cover
	Origin     *originJSON    `json:"origin"`
	LastBackup *recordJSON    `json:"last_backup"`
	Proven     *string        `json:"proven_restore"` // when a restore that was tried out last worked
	WALBytes   int64          `json:"wal_bytes"`
}

type originJSON struct {
	VaultID string     `json:"vault_id"`
	Signer  signerJSON `json:"signer"`
}

// status is what runStatus shows.
type status struct {
	path        string
	openedBy    vault.Source
	meta        vault.Meta
	slots       []vault.Slot
	totals      registry.Totals
	sheet       time.Time      // when a sheet with this signer was written; zero: never
	behindSince time.Time      // the oldest change that the high-water mark in the keyring does not cover; zero: none
	last        *backup.Record // nil: there is no backup
	proven      time.Time      // when a restore that was tried out last worked; zero: never
	walBytes    int64
}

func runStatus(ctx context.Context, a *app, o statusOptions) error {
	page, err := newSheet(o.sheet)
	if err != nil {
		return err
	}
	var s status
	err = a.withVault(ctx, func(v *vault.Vault) error {
		if err := page.write(ctx, a, v); err != nil {
			return err
		}
		s, err = readStatus(ctx, v)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(newStatusJSON(s))
	}
	a.ui.pairs(s.pairs(a.now()))
	return nil
}

// readStatus reads the status from the open vault and the files beside it.
func readStatus(ctx context.Context, v *vault.Vault) (status, error) {
	s := status{path: v.Path(), openedBy: v.Source()}
	err := v.View(ctx, func(tx *vault.Tx) (err error) {
		if s.meta, err = tx.Meta(ctx); err != nil {
			return err
		}
		if s.slots, err = tx.Slots(ctx); err != nil {
			return err
		}
		signers, err := tx.Signers(ctx)
		if err != nil {
			return err
		}
		s.sheet = signers[len(signers)-1].Sheet
		s.totals, err = registry.Counts(ctx, tx)
		return err
	})
	if err != nil {
		return status{}, err
	}
	records, err := backup.List(ctx, v)
	if err != nil {
		return status{}, err
	}
	s.last = backup.NewestRecord(records)
	if r := backup.LastProven(records); r != nil {
		s.proven = r.Proven
	}
	if s.openedBy == vault.FromKeyring {
		if state, err := v.Anchor(ctx); err == nil {
			s.behindSince = state.BehindSince
		}
	}
	if info, err := os.Stat(s.path + "-wal"); err == nil {
		s.walBytes = info.Size()
	}
	return s, nil
}

func newStatusJSON(s status) statusJSON {
	j := statusJSON{
		Path:       s.path,
		VaultID:    s.meta.VaultID,
		KeyID:      s.meta.KeyID.String(),
		Generation: s.meta.Generation,
		Class:      s.meta.Class,
		Schema:     vault.SchemaVersion(),
		Created:    wire.FormatTime(s.meta.Created),
		KeyCreated: wire.FormatTime(s.meta.KeyCreated),
		OpenedBy:   s.openedBy,
		Keyring:    s.meta.Keyring,
		Slots:      s.slots,
		Nodes:      s.totals.Nodes,
		SSHKeys:    s.totals.SSHKeys,
		HostKeys:   s.totals.HostKeys,
		Signer:     newSignerJSON(s.meta.Signer),
		Sheet:      nullableTime(s.sheet),
		Unanchored: nullableTime(s.behindSince),
		Proven:     nullableTime(s.proven),
		WALBytes:   s.walBytes,
	}
	if s.meta.OriginVaultID != "" {
		j.Origin = &originJSON{s.meta.OriginVaultID, newSignerJSON(s.meta.OriginSigner)}
	}
	if s.last != nil {
		record := newRecordJSON(*s.last, false)
		j.LastBackup = &record
	}
	return j
}

// nullableTime returns the time as JSON has it, or nil if there is none.
func nullableTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return wire.Nullable(wire.FormatTime(t))
}

// pairs returns the status as names and values.
func (s status) pairs(now time.Time) [][2]string {
	m := s.meta
	pairs := [][2]string{
		{"vault", s.path},
		{"vault id", m.VaultID},
		{"key id", fmt.Sprintf("%s (generation %d, made %s)", m.KeyID, m.Generation, m.KeyCreated.Format(time.DateOnly))},
		{"class", string(m.Class)},
		{"opened by", string(s.openedBy)},
	}
	add := func(name, value string) { pairs = append(pairs, [2]string{name, value}) }
	if m.Keyring {
		add("opens by", "the OS keyring")
	}
	for _, slot := range s.slots {
		add("opens by", slotText(slot))
	}
	add("holds", fmt.Sprintf("%d nodes, %d SSH keys, %d host keys", s.totals.Nodes, s.totals.SSHKeys, s.totals.HostKeys))
	add("signer", vault.Fingerprint(m.Signer))
	if s.sheet.IsZero() {
		add("sheet", "no sheet names this signer yet: rbee-vault status --sheet FILE")
	}
	if !s.behindSince.IsZero() {
		add("high-water mark", "the keyring does not cover the changes since "+wire.FormatTime(s.behindSince))
	}
	if m.OriginVaultID != "" {
		add("restored from", fmt.Sprintf("vault %s, signer %s", m.OriginVaultID, vault.Fingerprint(m.OriginSigner)))
	}
	last := "never"
	if s.last != nil {
		last = backupText(*s.last, now)
	}
	add("last backup", last)
	add("proven restore", provenText(s.proven, now))
	add("log", fmt.Sprintf("%d bytes", s.walBytes))
	return pairs
}

// backupText says how old a backup is, and where its copies are.
func backupText(r backup.Record, now time.Time) string {
	var copies []string
	for _, c := range r.Copies {
		copies = append(copies, fmt.Sprintf("%s (%s)", c, r.State(c, false)))
	}
	return fmt.Sprintf("%s ago, %s", ago(now.Sub(r.AsOf())), strings.Join(copies, ", "))
}
