package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// FindingStatus says how a check went.
type FindingStatus string

// The statuses of a finding.
const (
	FindingOK   FindingStatus = "ok"
	FindingWarn FindingStatus = "warn"
	FindingFail FindingStatus = "fail"
)

// Finding is the outcome of one check.
type Finding struct {
	Check   string
	Status  FindingStatus
	Message string
	Mend    string // a command, or ""
	Err     error  // of a failure
}

func okay(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: FindingOK, Message: fmt.Sprintf(format, args...)}
}

func warning(check, mend, format string, args ...any) Finding {
	return Finding{Check: check, Status: FindingWarn, Mend: mend, Message: fmt.Sprintf(format, args...)}
}

func failed(check, mend string, err error) Finding {
	return Finding{Check: check, Status: FindingFail, Mend: mend, Message: err.Error(), Err: err}
}

// Examine checks everything about the vault at cfg.Path that can be checked,
// also when it does not open; opening it heals what can be healed. What is found
// comes as findings; the error is for a path that cannot be examined at all,
// such as [ErrNoVault].
//
// When the vault opens, use is called with it before it is closed, to add to the
// findings. Nil: nothing to add.
func Examine(ctx context.Context, cfg Config, use func(*Vault) []Finding) ([]Finding, error) {
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
		found = append(found, failed("slots file", "", err))
	}
	v, err := Open(ctx, cfg)
	if err != nil {
		switch {
		case !before.present() && errors.Is(err, ErrNoWayIn):
			found = append(found, failed("slots file", "", fmt.Errorf("%w: the slots file %q is missing", ErrDamaged, p.slots)))
		case !before.present():
			found = append(found, warning("slots file", "", "it is missing; opening the vault through its keyring writes it anew"))
		case before.err != nil:
			found = append(found, failed("slots file", "", fmt.Errorf("%w: the slots file is unreadable: %w", ErrDamaged, before.err)))
		default:
			found = append(found, okay("slots file", "%d entries", len(before.entries)))
		}
		found = append(found, failed("open", "", err))
		return append(found, p.examineLeftovers()...), nil
	}
	defer v.Close()
	found = append(found, v.examineSlots(before), okay("open", "by %s", v.source))
	if err := v.CheckPages(ctx); err != nil {
		found = append(found, failed("pages", "", err))
	} else {
		found = append(found, okay("pages", "every page, constraint and reference holds"))
	}
	var head AuditHead
	err = v.View(ctx, func(tx *Tx) (err error) {
		head, err = tx.VerifyAudit(ctx)
		return err
	})
	if err != nil {
		found = append(found, failed("audit log", "", err))
	} else {
		found = append(found, okay("audit log", "%d rows, an unbroken chain", head.Seq))
	}
	if use != nil {
		found = append(found, use(v)...)
	}
	return append(found, p.examineLeftovers()...), nil
}

func (p paths) examineModes() []Finding {
	var found []Finding
	for _, path := range append([]string{p.dir, p.db, p.slots, p.lock, p.write}, sideFiles(p.db)...) {
		err := CheckPrivate(path)
		if insecure, ok := errors.AsType[*InsecureError](err); ok {
			found = append(found, failed("modes", insecure.Mend, err))
		} else if err != nil {
			found = append(found, failed("modes", "", err))
		}
	}
	if found == nil {
		found = append(found, okay("modes", "%s and its files are yours alone", p.dir))
	}
	return found
}

// examineSlots compares the slots file as it was before the vault was opened
// with what it is now.
func (v *Vault) examineSlots(before slotsFile) Finding {
	now, err := readSlotsFile(v.paths.slots)
	switch {
	case v.unsettled != nil:
		return failed("slots file", "", v.unsettled)
	case err != nil:
		return failed("slots file", "", err)
	case !v.readOnly && !before.present():
		return warning("slots file", "", "it was missing, and is written anew from the database")
	case !bytes.Equal(before.data, now.data):
		return warning("slots file", "", "it differed from the database, and is written anew")
	case len(now.entries) > 1:
		return warning("slots file", "", "it keeps %d entries until the vault is opened through its keyring", len(now.entries)-1)
	}
	return okay("slots file", "as the database says")
}

// examineLeftovers names what lies beside the database. Some of it is wanted.
func (p paths) examineLeftovers() []Finding {
	var found []Finding
	for _, kind := range []struct{ infix, what string }{
		{".new", "what an interrupted run was building; opening the vault removes it"},
		{".slots.part-", "an unfinished write; the next change removes it"},
		{".slots.foreign-", "a slots file that was put aside; remove it when you know that nothing needs it"},
		{".before-v", "the vault from before a migration; remove it when all is well"},
		{".replaced-", "a vault that restore set aside; remove it when nothing needs it"},
	} {
		for _, path := range p.glob(kind.infix) {
			if kind.infix == ".replaced-" || kind.infix == ".before-v" {
				if strings.HasSuffix(path, ".lock") || strings.HasSuffix(path, ".write") || strings.HasSuffix(path, ".slots") {
					continue
				}
			}
			if ok, err := durable.Exists(path); err == nil && ok {
				found = append(found, warning("leftovers", "rm "+Quote(path), "%s: %s", path, kind.what))
			}
		}
	}
	if found == nil {
		found = append(found, okay("leftovers", "none"))
	}
	return found
}
