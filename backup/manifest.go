package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

const (
	formatPrefix = "rbee-vault-backup-"
	format       = formatPrefix + "1"
)

// Manifest describes a backup. Its JSON is the member manifest.json.
type Manifest struct {
	Format     string  `json:"format"`
	VaultID    string  `json:"vault_id"`
	Generation int64   `json:"generation"`
	Origin     *Origin `json:"origin"`   // null: the vault was not restored from a backup
	Sequence   int64   `json:"sequence"` // counts a vault's backups from 1
	Created    string  `json:"created"`  // in the format of wire.FormatTime
	Program    string  `json:"program"`
	Schema     int64   `json:"schema"`
	Counts     Counts  `json:"counts"`
	AuditSeq   int64   `json:"audit_seq"`
	AuditHash  string  `json:"audit_hash"`
	Previous   *string `json:"previous"` // SHA-256 of the last completed backup's SHA256SUMS
	Signer     string  `json:"signer"`   // public key line
}

// Origin is the vault whose backup a vault was restored from.
type Origin struct {
	VaultID string `json:"vault_id"`
	Signer  string `json:"signer"`
}

// Counts is how many rows of each kind a backup holds.
type Counts struct {
	Signers   int64 `json:"signers"`
	Nodes     int64 `json:"nodes"`
	SSHKeys   int64 `json:"ssh_keys"`
	Rotations int64 `json:"key_rotations"`
	HostKeys  int64 `json:"host_keys"`
	Targets   int64 `json:"backup_targets"`
	Settings  int64 `json:"settings"`
	AuditLog  int64 `json:"audit_log"`
	Slots     int64 `json:"slots"`
}

func (c Counts) total() int64 {
	return c.Signers + c.Nodes + c.SSHKeys + c.Rotations + c.HostKeys + c.AuditLog + c.Slots
}

// SignerFingerprint returns the signer's fingerprint, "SHA256:...", as on the
// recovery sheet.
func (m Manifest) SignerFingerprint() string { return vault.Fingerprint(m.Signer) }

// newManifest describes the vault at the moment of the transaction. The backup was begun at
// created.
func newManifest(ctx context.Context, tx *vault.Tx, sequence int64, created time.Time, program string) (Manifest, error) {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return Manifest{}, err
	}
	head, err := tx.AuditHead(ctx)
	if err != nil {
		return Manifest{}, err
	}
	counts, err := newCounts(ctx, tx, head)
	if err != nil {
		return Manifest{}, err
	}
	previous, _, err := selectPrevious(ctx, tx, sequence)
	if err != nil {
		return Manifest{}, fmt.Errorf("read backups: %w", err)
	}
	m := Manifest{
		Format:     format,
		VaultID:    meta.VaultID,
		Generation: meta.Generation,
		Sequence:   sequence,
		Created:    wire.FormatTime(created),
		Program:    program,
		Schema:     vault.SchemaVersion(),
		Counts:     counts,
		AuditSeq:   head.Seq,
		AuditHash:  hex.EncodeToString(head.Hash[:]),
		Previous:   wire.Nullable(previous),
		Signer:     meta.Signer,
	}
	if meta.OriginVaultID != "" {
		m.Origin = &Origin{VaultID: meta.OriginVaultID, Signer: meta.OriginSigner}
	}
	return m, nil
}

func newCounts(ctx context.Context, tx *vault.Tx, head vault.AuditHead) (Counts, error) {
	totals, err := registry.Counts(ctx, tx)
	if err != nil {
		return Counts{}, err
	}
	slots, err := tx.Slots(ctx)
	if err != nil {
		return Counts{}, err
	}
	signers, err := tx.Signers(ctx)
	if err != nil {
		return Counts{}, err
	}
	var targets, settings int64
	if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM backup_targets), (SELECT count(*) FROM settings)`).Scan(&targets, &settings); err != nil {
		return Counts{}, err
	}
	return Counts{
		Signers:   int64(len(signers)),
		Nodes:     int64(totals.Nodes),
		SSHKeys:   int64(totals.SSHKeys),
		Rotations: int64(totals.Rotations),
		HostKeys:  int64(totals.HostKeys),
		Targets:   targets,
		Settings:  settings,
		AuditLog:  head.Seq,
		Slots:     int64(len(slots)),
	}, nil
}

func (m Manifest) encode(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(m)
}

// parseManifest parses the member. A format of a later program is
// [vault.ErrNewer]. Anything else that is wrong is [ErrDamaged].
func parseManifest(data []byte) (Manifest, error) {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest.json: %w", ErrDamaged, err)
	}
	if head.Format != format && strings.HasPrefix(head.Format, formatPrefix) {
		return Manifest{}, fmt.Errorf("%w: backup of format %q, this program reads %q", vault.ErrNewer, head.Format, format)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest.json: %w", ErrDamaged, err)
	}
	var again bytes.Buffer
	if err := m.encode(&again); err != nil || !bytes.Equal(again.Bytes(), data) {
		return Manifest{}, fmt.Errorf("%w: manifest.json is not as it was written", ErrDamaged)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest.json: %w", ErrDamaged, err)
	}
	return m, nil
}

func (m Manifest) validate() error {
	if m.Format != format {
		return fmt.Errorf("format %q is not supported", m.Format)
	}
	if _, err := wire.ParseTime(m.Created); err != nil {
		return err
	}
	if b, err := hex.DecodeString(m.AuditHash); err != nil || len(b) != sha256.Size {
		return errors.New("audit_hash is not a hash")
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(m.Signer)); err != nil {
		return errors.New("signer is not a public key")
	}
	if m.Sequence < 1 || m.Generation < 1 {
		return errors.New("sequence and generation must be at least 1")
	}
	return nil
}
