package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age/plugin"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ActionDrill is the audit log's action of a restore that was tried out. The subject is the
// backup's sequence, or empty for a backup of another vault; the detail is the result.
const ActionDrill vault.UrgentAction = "backup.drill"

// DrillOptions says which backup is tried, and how.
type DrillOptions struct {
	// ReadOptions are those of a restore. Trust is asked only about a backup that the vault has
	// not recorded.
	ReadOptions
	// Sequence is the backup that the file should be. Zero: any.
	Sequence int64
	// Plugins is as in [vault.Config].
	Plugins *plugin.ClientUI
	// Program is the name and version of the program, for the receipt.
	Program string
}

// Drill is a restore that was tried out, as the vault has recorded it.
type Drill struct {
	At         time.Time
	Sequence   int64  // 0: it was not a backup of this vault
	SumsSHA256 string // of the backup; "" if it was not read so far
	UnlockedBy string
	Took       time.Duration
	Failed     string // why it does not restore; "": it does
	Receipt    []byte // see [Receipt]
	Signature  []byte // of the vault's signer over Receipt: armored sshsig
}

// Prove tries a restore of a backup out: into a throwaway vault beside the database, which it
// opens, checks and compares with what the vault recorded when the backup was made, and with
// the vault itself if nothing has changed since. It records the result, with a signed receipt.
//
// The error says why the backup does not restore: those of [Verify] and of [vault.Restore], and
// [ErrNotProven]. Then the Drill is recorded too. No Drill is recorded (At is zero) if ctx was
// cancelled, if no identity was given, or if opts.Trust refused the signer.
func Prove(ctx context.Context, v *vault.Vault, r io.Reader, opts DrillOptions) (Drill, error) {
	records, err := List(ctx, v)
	if err != nil {
		return Drill{}, err
	}
	d := &drilling{vault: v, opts: opts, records: records, file: newMeasure(io.Discard)}
	for i := range records {
		if records[i].Sequence == opts.Sequence {
			d.record = &records[i]
		}
	}
	begun := time.Now()
	err = d.run(ctx, io.TeeReader(r, d.file))
	if err != nil {
		err = fmt.Errorf("drill: %w", err)
	}
	if unrecorded(ctx, err) {
		return Drill{}, err
	}
	done, e := d.store(context.WithoutCancel(ctx), time.Since(begun), err)
	if err == nil {
		err = e
	}
	return done, err
}

// unrecorded reports whether a drill ended before it could say anything about the backup.
func unrecorded(ctx context.Context, err error) bool {
	if err != nil && ctx.Err() != nil {
		return true
	}
	for _, cause := range []error{ErrUntrusted, ErrSuccessor, vault.ErrNoUnlockMethod, vault.ErrLocked, vault.ErrReadOnly, vault.ErrUnsettled} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}

// drilling is a running drill.
type drilling struct {
	vault   *vault.Vault
	opts    DrillOptions
	records []Record
	file    *measure // what was read of the file

	claim    Claim    // zero until the signer is trusted
	manifest Manifest // zero until everything is verified
	record   *Record  // of the backup; nil: it is not known to be one of this vault
	slot     *vault.Slot
	checks   []string // what held
}

func (d *drilling) run(ctx context.Context, r io.Reader) error {
	read := d.opts.ReadOptions
	read.Trust = d.trust
	return d.vault.Rehearse(ctx, vault.Rehearsal{
		Identities: d.opts.Identities,
		Fill: func(ctx context.Context, tx *vault.Tx) (b vault.Backup, err error) {
			b, d.manifest, err = fill(ctx, tx, r, read, d.opts.Plugins)
			return b, err
		},
		Use: func(ctx context.Context, restored *vault.Vault, opener *vault.Slot) error {
			d.slot = opener
			d.held("every page, reference, audit row and digest of the restored vault")
			return d.compare(ctx, restored)
		},
	})
}

// trust trusts the backups that the vault has recorded, and asks about any other.
func (d *drilling) trust(ctx context.Context, c Claim) error {
	var known *Record
	for i := range d.records {
		if d.records[i].Completed() && d.records[i].SumsSHA256 == c.SumsSHA256 {
			known = &d.records[i]
		}
	}
	switch {
	case d.opts.Sequence != 0 && (known == nil || known.Sequence != d.opts.Sequence):
		return fmt.Errorf("%w: it is not backup %d", ErrNotProven, d.opts.Sequence)
	case known != nil:
	case d.opts.Trust == nil:
		return TrustSigners()(ctx, c)
	default:
		if err := d.opts.Trust(ctx, c); err != nil {
			return err
		}
	}
	d.claim, d.record = c, known
	return nil
}

func (d *drilling) held(what string) { d.checks = append(d.checks, what) }

// compare compares the restored vault with what is known about the backup.
func (d *drilling) compare(ctx context.Context, restored *vault.Vault) error {
	var counts Counts
	var content, configuration string
	var last vault.AuditRow
	err := restored.View(ctx, func(tx *vault.Tx) (err error) {
		if counts, err = newCounts(ctx, tx, vault.AuditHead{}); err != nil {
			return err
		}
		if content, err = hashContent(ctx, tx, counts); err != nil {
			return err
		}
		if last, err = auditRow(ctx, tx, d.manifest.AuditSeq); err != nil {
			return err
		}
		configuration, err = hashConfiguration(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the restored vault: %w", err)
	}
	want := d.manifest.Counts
	counts.Signers, counts.AuditLog = want.Signers, want.AuditLog // the restored vault has its own
	if counts != want {
		return fmt.Errorf("%w: it holds %+v, not %+v", ErrNotProven, counts, want)
	}
	if head := hex.EncodeToString(last.Hash[:]); head != d.manifest.AuditHash {
		return fmt.Errorf("%w: its audit row %d has the hash %s, not %s", ErrNotProven, d.manifest.AuditSeq, head, d.manifest.AuditHash)
	}
	d.held("the counts and the audit head of the manifest")
	if d.record == nil {
		return nil
	}
	if err := d.compareRecord(content); err != nil {
		return err
	}
	return d.compareLive(ctx, configuration)
}

// compareRecord compares the backup with its record.
func (d *drilling) compareRecord(content string) error {
	r, m := d.record, d.manifest
	for _, pair := range []struct{ what, have, want string }{
		{"file", d.file.hash(), r.SHA256},
		{"size", fmt.Sprint(d.file.size), fmt.Sprint(r.Size)},
		{"sequence", fmt.Sprint(m.Sequence), fmt.Sprint(r.Sequence)},
		{"content", content, r.ContentHash},
		{"number of nodes", fmt.Sprint(m.Counts.Nodes), fmt.Sprint(r.Nodes)},
		{"number of SSH keys", fmt.Sprint(m.Counts.SSHKeys), fmt.Sprint(r.SSHKeys)},
		{"audit head", fmt.Sprint(m.AuditSeq, m.AuditHash), fmt.Sprint(r.AuditSeq, r.AuditHash)},
		{"signer", m.SignerFingerprint(), r.Signer},
	} {
		if pair.have != pair.want {
			return fmt.Errorf("%w: its %s is %s, and the vault recorded %s", ErrNotProven, pair.what, pair.have, pair.want)
		}
	}
	d.held("file, content, counts, audit head and signer as the vault recorded them")
	return nil
}

// compareLive compares the backup with the vault as it is: with its audit log, which unlike the
// record cannot be changed unnoticed, and with its rows if nothing has changed since.
func (d *drilling) compareLive(ctx context.Context, configuration string) error {
	var then vault.AuditRow
	var now, live string
	err := d.vault.View(ctx, func(tx *vault.Tx) (err error) {
		if then, err = auditRow(ctx, tx, d.record.AuditSeq); err != nil {
			return err
		}
		if now, err = currentDigest(ctx, tx); err != nil || now != d.record.Digest {
			return err
		}
		live, err = hashConfiguration(ctx, tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the vault: %w", err)
	}
	if hex.EncodeToString(then.Hash[:]) != d.record.AuditHash || then.Digest != d.record.Digest {
		return fmt.Errorf("%w: row %d of the vault's audit log is another one", ErrNotProven, d.record.AuditSeq)
	}
	d.held("the audit head as a row of the vault's own audit log")
	if now != d.record.Digest {
		return nil
	}
	if live != configuration {
		return fmt.Errorf("%w: nothing has changed since, but the vault's rows are others", ErrNotProven)
	}
	d.held("every row as in the vault, in which nothing has changed since")
	return nil
}

// hashContent computes [Record.ContentHash] for the vault at the moment of the transaction.
func hashContent(ctx context.Context, tx *vault.Tx, counts Counts) (string, error) {
	a := newArchiveWriter(tx, Manifest{Counts: counts}, nil)
	var content []sum
	for _, m := range layout(int(counts.SSHKeys)) {
		if !m.content {
			continue
		}
		measured := newMeasure(io.Discard)
		if err := m.write(a, ctx, measured); err != nil {
			return "", fmt.Errorf("%s: %w", m.name, err)
		}
		content = append(content, sum{name: m.name, hash: measured.hash()})
	}
	return hashOf(encodeSums(content)), nil
}

// hashConfiguration returns a hash of what the content digest covers: two vaults of the same
// configuration have the same. States, such as the time of the last contact, do not count.
func hashConfiguration(ctx context.Context, tx *vault.Tx) (string, error) {
	m := newMeasure(io.Discard)
	lines, a := lineWriter{w: m}, newArchiveWriter(tx, Manifest{}, nil)
	for n, err := range registry.EachNode(ctx, tx) {
		n.Status, n.LastConnected = registry.StatusUnknown, time.Time{}
		if err == nil {
			err = lines.write(n)
		}
		if err != nil {
			return "", err
		}
	}
	for k, err := range registry.EachSSHKey(ctx, tx) {
		k.Used = time.Time{}
		if err == nil {
			err = lines.write(k)
		}
		if err != nil {
			return "", err
		}
		a.fingerprints = append(a.fingerprints, k.Fingerprint)
	}
	for i := range a.fingerprints {
		if err := a.writePrivateKey(ctx, m, i); err != nil {
			return "", err
		}
	}
	for k, err := range registry.EachHostKey(ctx, tx) {
		k.FirstSeen, k.LastSeen = time.Time{}, time.Time{}
		if err == nil {
			err = lines.write(k)
		}
		if err != nil {
			return "", err
		}
	}
	for _, write := range []func(context.Context, io.Writer) error{a.writeRotations, a.writeTargets, a.writeSettings, a.writeSlots} {
		if err := write(ctx, m); err != nil {
			return "", err
		}
	}
	return m.hash(), nil
}

// unlockedBy says which identity opened the backup.
func (d *drilling) unlockedBy() Unlock {
	if d.slot != nil {
		return Unlock{Kind: string(d.slot.Kind), Label: d.slot.Label, Recipient: d.slot.Recipient}
	}
	for _, id := range d.opts.Identities {
		for _, id := range append(identity.Opened(id), id) {
			if recipient := identity.Describe(id).Recipient; recipient != "" {
				return Unlock{Kind: "identity", Recipient: recipient}
			}
		}
	}
	return Unlock{Kind: "identity"}
}

// store signs a receipt, and records the drill.
func (d *drilling) store(ctx context.Context, took time.Duration, failed error) (Drill, error) {
	done := Drill{SumsSHA256: d.claim.SumsSHA256, Took: took.Round(time.Millisecond), UnlockedBy: d.unlockedBy().String()}
	if d.record != nil {
		done.Sequence = d.record.Sequence
	}
	result := "it restores"
	if failed != nil {
		done.Failed = failed.Error()
		result = done.Failed
	}
	err := d.vault.Update(ctx, func(tx *vault.Tx) (err error) {
		done.At = tx.Now()
		if done.Receipt, done.Signature, err = d.sign(ctx, tx, done); err != nil {
			return err
		}
		if err := insertDrill(ctx, tx, done); err != nil {
			return err
		}
		subject := ""
		if done.Sequence != 0 {
			subject = fmt.Sprint(done.Sequence)
		}
		return tx.Audit(ctx, vault.Event{Action: ActionDrill, Subject: subject, Detail: result})
	})
	if err != nil {
		return Drill{}, fmt.Errorf("record drill: %w", err)
	}
	return done, nil
}

// Drills returns the drills that the vault recorded, oldest first.
func Drills(ctx context.Context, v *vault.Vault) (drills []Drill, err error) {
	err = v.View(ctx, func(tx *vault.Tx) (err error) {
		drills, err = selectDrills(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read drills: %w", err)
	}
	return drills, nil
}
