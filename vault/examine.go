package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// ExamineOptions says what else to examine.
type ExamineOptions struct {
	// Offers are tried on every slot, one by one. They do not open the vault: cfg.Identities
	// does.
	Offers []Offer
	// Use is called with the open vault and adds to the findings. It is not called if the vault
	// does not open. Nil: nothing to add.
	Use func(*Vault) []Finding
}

// Examine checks everything about the vault at cfg.Path that can be checked, even if the vault
// does not open. Opening it repairs what can be repaired. The results are the findings. The
// error is for a path that cannot be examined at all, such as [ErrNoVault].
func Examine(ctx context.Context, cfg Config, opts ExamineOptions) ([]Finding, error) {
	p, err := newPaths(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := mustExist(p); err != nil {
		return nil, err
	}
	found := p.examineModes()
	before, err := readSlotsFile(p.slots)
	if err != nil {
		found = append(found, failed(CheckSlotsFile, "", err))
	}
	v, err := Open(ctx, cfg)
	if err != nil {
		switch {
		case !before.present() && errors.Is(err, ErrSlotsFile):
			found = append(found, failed(CheckSlotsFile, "", fmt.Errorf("%w: the slots file %q is missing", ErrDamaged, p.slots)))
		case !before.present():
			found = append(found, warning(CheckSlotsFile, "", "it is missing; opening the vault through its keyring writes it again"))
		case before.err != nil:
			found = append(found, failed(CheckSlotsFile, "", fmt.Errorf("%w: the slots file is unreadable: %w", ErrDamaged, before.err)))
		default:
			found = append(found, okay(CheckSlotsFile, "%d entries", len(before.entries)))
		}
		found = append(found, failed(CheckOpen, "", err))
		if len(before.entries) > 0 {
			e := before.entries[0]
			if id, err := peekKeyID(p.db); err == nil && before.find(id) != nil {
				e = *before.find(id)
			}
			found = append(found, cfg.examineUnlockMethods(ctx, e, opts.Offers)...)
		}
		return append(found, p.examineLeftovers()...), nil
	}
	defer v.Close()
	found = append(found, v.examineSlotsFile(before), okay(CheckOpen, "by %s", v.source))
	r, err := v.readAudited(ctx)
	if err != nil {
		return append(found, failed(CheckSlots, "", err)), nil
	}
	found = append(found, cfg.examineUnlockMethods(ctx, newEntry(r.meta, r.slots, v.key.Check(), stateCurrent), opts.Offers)...)
	found = append(found, v.examineAnchor(ctx, r)...)
	found = append(found, v.examineKeyAge(r.meta))
	found = append(found, v.examineContent(ctx)...)
	if opts.Use != nil {
		found = append(found, opts.Use(v)...)
	}
	found = append(found, p.examineLeftovers()...)
	return append(found, v.examineOrphans(ctx, r.meta)...), nil
}

// examineContent reads every page and every row.
func (v *Vault) examineContent(ctx context.Context) []Finding {
	var found []Finding
	if err := v.CheckPages(ctx); err != nil {
		found = append(found, failed(CheckPages, "", err))
	} else {
		found = append(found, okay(CheckPages, "every page, constraint and reference holds"))
	}
	var head AuditHead
	var signers []Signer
	var rows error
	err := v.View(ctx, func(tx *Tx) (err error) {
		rows = tx.VerifyContent(ctx)
		if signers, err = tx.Signers(ctx); err != nil {
			return err
		}
		head, err = tx.VerifyAudit(ctx)
		return err
	})
	if err != nil {
		found = append(found, failed(CheckAuditLog, "", err))
	} else {
		found = append(found, okay(CheckAuditLog, "%d rows, an unbroken chain", head.Seq))
	}
	if rows != nil {
		found = append(found, failed(CheckRows, "", rows))
	} else {
		found = append(found, okay(CheckRows, "nodes, keys, host keys, signers and slots are those of the newest audit row"))
	}
	if len(signers) > 0 {
		found = append(found, examineSigner(signers))
	}
	return found
}

func examineSigner(signers []Signer) Finding {
	s := signers[len(signers)-1]
	if s.Sheet.IsZero() {
		return warning(CheckSigner, "rbee-vault status --sheet FILE", "no sheet names %s, the signer since %s", s.Fingerprint(), s.Created.Format(time.DateOnly))
	}
	return okay(CheckSigner, "%s, on a sheet of %s", s.Fingerprint(), s.Sheet.Format(time.DateOnly))
}

// oldKey is the age from which a key gets a warning.
const oldKey = 2 * 365 * 24 * time.Hour

func (v *Vault) examineKeyAge(m Meta) Finding {
	age := v.cfg.now().Sub(m.KeyCreated)
	if age > oldKey {
		return warning(CheckKeyAge, "rbee-vault rotate", "generation %d was made %s, %d days old", m.Generation, m.KeyCreated.Format(time.DateOnly), int(age.Hours()/24))
	}
	return okay(CheckKeyAge, "generation %d, made %s", m.Generation, m.KeyCreated.Format(time.DateOnly))
}

// examineAnchor compares the anchor, even if the vault was not opened by the keyring.
func (v *Vault) examineAnchor(ctx context.Context, r reading) []Finding {
	if !r.meta.Keyring || v.readOnly || v.cfg.Keyring == nil {
		return nil
	}
	err := v.compareAnchor(ctx, r)
	v.mu.Lock()
	missing := v.anchorProgress.missing
	v.mu.Unlock()
	switch {
	case errors.Is(err, keyring.ErrUnavailable):
		return []Finding{warning(CheckAnchor, "", "not compared: %v", err)}
	case err != nil:
		return []Finding{failed(CheckAnchor, "", err)}
	case missing:
		return []Finding{warning(CheckAnchor, "", "the keyring had none, so an older copy of the database would not have been noticed; one is written")}
	}
	state, err := v.Anchor(ctx)
	switch {
	case err != nil:
		return []Finding{warning(CheckAnchor, "", "%v", err)}
	case !state.Retry.IsZero():
		return []Finding{warning(CheckAnchor, "", "the keyring refused it; the next attempt is at %s", wire.FormatTime(state.Retry))}
	case !state.BehindSince.IsZero() && v.cfg.now().Sub(state.BehindSince) > 2*anchorDelay:
		return []Finding{warning(CheckAnchor, "", "it does not cover the changes since %s, so an older copy without them would not be noticed", wire.FormatTime(state.BehindSince))}
	}
	return []Finding{okay(CheckAnchor, "the database is not behind what the keyring has seen")}
}

// examineOrphans looks for keyring items that no database needs any more. It finds their keys
// in the slots files beside the database.
func (v *Vault) examineOrphans(ctx context.Context, m Meta) []Finding {
	if !m.Keyring || v.cfg.Keyring == nil {
		return nil
	}
	known := map[KeyID]bool{m.KeyID: true}
	for _, path := range v.paths.asides() {
		id, err := peekKeyID(path)
		if err != nil {
			return nil // that database may have any key
		}
		known[id] = true
	}
	var found []Finding
	files := append([]string{v.paths.slots}, v.paths.of(foreignSlots)...)
	for _, path := range v.paths.asides() {
		files = append(files, path+".slots")
	}
	for _, path := range files {
		file, err := readSlotsFile(path)
		if err != nil {
			continue
		}
		for _, e := range file.entries {
			if known[e.KeyID] || !e.Keyring || e.VaultID != m.VaultID {
				continue // it is needed, it has no item, or it is another vault's
			}
			known[e.KeyID] = true
			if _, err := v.cfg.Keyring.Get(ctx, e.KeyID.String()); err == nil {
				found = append(found, warning(CheckKeyringLeftovers, "secret-tool clear service rbee-vault username "+e.KeyID.String(),
					"an item for key id %s, which %s names and no database here begins with", e.KeyID, filepath.Base(path)))
			}
		}
	}
	return found
}

func (p paths) examineModes() []Finding {
	var found []Finding
	paths := append([]string{p.dir, p.db, p.slots, p.lock, p.write}, sqlcipher.SideFiles(p.db)...)
	if _, err := peekKeyID(p.db); errors.Is(err, ErrPlaintext) { // it is no vault; opening it says so
		paths = paths[:1]
	}
	for _, path := range paths {
		err := CheckPrivate(path)
		if insecure, ok := errors.AsType[*InsecureError](err); ok {
			found = append(found, failed(CheckModes, insecure.Fix, err))
		} else if err != nil {
			found = append(found, failed(CheckModes, "", err))
		}
	}
	if found == nil {
		found = append(found, okay(CheckModes, "only you can read %s and its files", p.dir))
	}
	return found
}

// examineSlotsFile compares the present slots file with the file before the vault was opened.
func (v *Vault) examineSlotsFile(before slotsFile) Finding {
	now, err := readSlotsFile(v.paths.slots)
	switch unsettled := v.changeable(); {
	case unsettled != nil && !v.readOnly:
		return failed(CheckSlotsFile, "", unsettled)
	case err != nil:
		return failed(CheckSlotsFile, "", err)
	case !v.readOnly && !before.present():
		return warning(CheckSlotsFile, "", "it was missing, and was written again from the database")
	case !bytes.Equal(before.data, now.data):
		return warning(CheckSlotsFile, "", "it differed from the database, and was written again")
	case len(now.entries) > 1:
		return warning(CheckSlotsFile, "", "it keeps %d entries until the vault is opened through its keyring", len(now.entries)-1)
	}
	return okay(CheckSlotsFile, "as the database says")
}

// examineLeftovers lists the files beside the database. Some of them are wanted.
func (p paths) examineLeftovers() []Finding {
	var found []Finding
	file, _ := readSlotsFile(p.slots) // other findings report its errors
	left, kept := p.leftovers(file)
	for _, kind := range []struct {
		paths []string
		what  string
	}{
		{left, "what an interrupted run was building or writing; opening the vault removes it"},
		{p.of(foreignSlots), "a slots file that was put aside; remove it when you know that nothing needs it"},
	} {
		for _, path := range kind.paths {
			found = append(found, warning(CheckLeftovers, "rm "+wire.Quote(path), "%s: %s", path, kind.what))
		}
	}
	if files := p.rehearsalFiles(); len(files) > 0 && !p.rehearsing() {
		found = append(found, warning(CheckLeftovers, "rbee-vault backup drill --identity FILE", "%s: what an interrupted drill left, under a key that nobody has; the next drill removes it", p.rehearsal))
	}
	for _, path := range kept {
		found = append(found, warning(CheckLeftovers, fmt.Sprintf("mv -n %s %s", wire.Quote(path), wire.Quote(path+".moved")), "%s: it is in the place of a new database, and no interrupted run left it; move it to another name", path))
	}
	for _, path := range p.asides() {
		what := "a vault that restore set aside"
		if _, kind := reserved(path); kind == beforeDatabase {
			what = "the vault from before a migration"
		}
		found = append(found, warning(CheckLeftovers, "rbee-vault destroy --db "+wire.Quote(path), "%s: %s; destroy it when nothing needs it", path, what))
	}
	if found == nil {
		found = append(found, okay(CheckLeftovers, "none"))
	}
	return found
}
