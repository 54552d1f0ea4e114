package backup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// LockState says what is known about a target's lock.
type LockState string

// The states of a lock.
const (
	LockNone      LockState = "none"       // the target asks for none
	LockProven    LockState = "proven"     // a deletion by one who may delete was refused
	LockNotProven LockState = "not_proven" // the credential may not delete anything anyway
	LockBroken    LockState = "broken"     // a locked object was deleted
)

// TargetCheck is what a check found out about a target. What it can do besides writing
// is more than backups need.
type TargetCheck struct {
	Exclusive bool // a second object of the same name was refused
	// Versions: the bucket keeps versions. Without them, a credential that may write can
	// write over a backup, for it need not ask as this program does.
	Versions bool
	Lock     LockState
	// DefaultRetention locks each new object of the bucket, as in "COMPLIANCE 30 days";
	// "": none is known.
	DefaultRetention string

	CanRead   bool
	CanList   bool
	CanDelete bool

	Probes []string // the names of probes that remain
}

// probeLock is how long a probe is locked.
const probeLock = 2 * time.Minute

// checker is a store that can be checked.
type checker interface {
	check(ctx context.Context, confirm func(ctx context.Context, retention string) error) (TargetCheck, error)
}

// CheckTarget writes a probe into a store, and tries what must not work: to write it again
// and, under a lock, to delete it. The probe has a name that [Store.Objects] leaves out. It
// is deleted where that works, and locked for two minutes at most, unless the bucket locks
// each new object: then confirm is asked first, and its error is returned.
//
// An error that matches [ErrUnsupported] comes with a check: the store replaces objects, or
// does not keep a lock.
func CheckTarget(ctx context.Context, s Store, confirm func(ctx context.Context, retention string) error) (TargetCheck, error) {
	c, ok := s.(checker)
	if !ok {
		return TargetCheck{}, fmt.Errorf("%w: this is no target", vault.ErrInvalid)
	}
	return c.check(ctx, confirm)
}

const probeText = "a probe of rbee-vault: it may be deleted\n"

// newProbe returns a name that no other probe has.
func newProbe() string {
	var unique [8]byte
	rand.Read(unique[:])
	return "rbee-vault-probe-" + hex.EncodeToString(unique[:])
}

// probeBody returns the content of a probe.
func probeBody() (*io.SectionReader, [sha256.Size]byte) {
	return io.NewSectionReader(strings.NewReader(probeText), 0, int64(len(probeText))), sha256.Sum256([]byte(probeText))
}

// check implements checker.
func (s dirStore) check(ctx context.Context, _ func(context.Context, string) error) (TargetCheck, error) {
	c := TargetCheck{Lock: LockNone, CanRead: true, CanList: true, CanDelete: true}
	name := newProbe()
	body, sum := probeBody()
	if _, err := s.Put(ctx, name, body, sum); err != nil {
		return c, err
	}
	body, sum = probeBody()
	_, err := s.Put(ctx, name, body, sum)
	c.Exclusive = errors.Is(err, ErrExists)
	if err := s.Remove(ctx, name, ""); err != nil {
		return c, err
	}
	if !c.Exclusive {
		return c, fmt.Errorf("%w: the directory took a second file of the same name: %w", ErrUnsupported, err)
	}
	return c, nil
}
