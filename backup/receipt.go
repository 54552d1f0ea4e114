package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// Receipt says that a restore of a backup was tried out, and with what result. The vault signs
// its JSON: `ssh-keygen -Y verify -n rbee-vault-drill` checks that, with the allowed_signers
// line of the recovery sheet.
type Receipt struct {
	Format     string         `json:"format"`
	VaultID    string         `json:"vault_id"` // of the vault that tried it
	Signer     string         `json:"signer"`   // of that vault: public key line
	At         string         `json:"at"`       // in the format of wire.FormatTime
	Program    string         `json:"program"`
	Backup     *ReceiptBackup `json:"backup"` // null: so much was not read
	SHA256     string         `json:"sha256"` // of what was read of the file
	Size       int64          `json:"size"`   // of that, in bytes
	UnlockedBy Unlock         `json:"unlocked_by"`
	Checks     []string       `json:"checks"` // what held
	TookMS     int64          `json:"took_ms"`
	Result     string         `json:"result"` // "ok" or "failed"
	Failed     *string        `json:"failed"` // why
}

// ReceiptBackup is the backup in a [Receipt]. What it says is verified if the result is "ok".
type ReceiptBackup struct {
	VaultID    string `json:"vault_id"` // of the vault that was backed up
	Sequence   int64  `json:"sequence"`
	Created    string `json:"created"`
	SumsSHA256 string `json:"sums_sha256"`
	Counts     Counts `json:"counts"`
	AuditSeq   int64  `json:"audit_seq"`
	AuditHash  string `json:"audit_hash"`
	Signer     string `json:"signer"` // fingerprint
}

// Unlock names the identity that opened a backup.
type Unlock struct {
	Kind      string `json:"kind"` // of the slot; "identity": it opens the backup, but is no slot
	Label     string `json:"label"`
	Recipient string `json:"recipient"` // "": only its plugin knows it
}

// String names the unlock method for a person.
func (u Unlock) String() string {
	text := strings.TrimSpace(u.Kind + " " + wire.Shorten(u.Recipient, 70))
	if u.Label != "" && u.Label != u.Kind {
		text += " (" + u.Label + ")"
	}
	return text
}

const receiptFormat = "rbee-vault-drill-1"

// sign returns the receipt of a drill, and its signature.
func (d *drilling) sign(ctx context.Context, tx *vault.Tx, done Drill) (receipt, signature []byte, err error) {
	meta, err := tx.Meta(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := Receipt{
		Format:     receiptFormat,
		VaultID:    meta.VaultID,
		Signer:     meta.Signer,
		At:         wire.FormatTime(done.At),
		Program:    d.opts.Program,
		SHA256:     d.file.hash(),
		Size:       d.file.size,
		UnlockedBy: d.unlockedBy(),
		Checks:     append([]string{}, d.checks...),
		TookMS:     done.Took.Milliseconds(),
		Result:     "ok",
		Failed:     wire.Nullable(done.Failed),
	}
	if r.Failed != nil {
		r.Result = "failed"
	}
	if m := d.manifest; m.Format != "" {
		r.Backup = &ReceiptBackup{
			VaultID:    m.VaultID,
			Sequence:   m.Sequence,
			Created:    m.Created,
			SumsSHA256: d.claim.SumsSHA256,
			Counts:     m.Counts,
			AuditSeq:   m.AuditSeq,
			AuditHash:  m.AuditHash,
			Signer:     m.SignerFingerprint(),
		}
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, nil, err
	}
	signer, err := tx.Signer(ctx)
	if err != nil {
		return nil, nil, err
	}
	signature, err = vault.Sign(text.Bytes(), signer, vault.ReceiptNamespace)
	return text.Bytes(), signature, err
}
