package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// A transition makes a new database under a new key and puts it in place. Init, restore and
// rotate are transitions. The steps, in this order:
//
//  1. if there is a database: checkpoint its write-ahead log, close it, and check that its side
//     files are gone
//  2. announce the new key in the slots file by a pending entry without slots; build the new
//     database beside the old one and verify it; its last change is the journal mode
//  3. if restore replaces a database: set copies of it and of its slots file aside
//  4. write the slots file with a pending entry for the new key, with its slots
//  5. hand over a new recovery identity
//  6. put the key into the keyring, and read it back
//  7. put the new database in place: this is the commit
//  8. open it, and settle
//
// Each step is durable before the next one begins. So a kill leaves either the old vault, with
// leftovers beside it that the next open removes, or the new vault. The exclusive lock is held
// throughout.
type transition struct {
	cfg   Config
	paths paths
	key   *Key
	meta  Meta
	slots []Slot

	// fill writes the rows of the new database and completes meta and slots. The event that it
	// returns becomes the last audit row.
	fill func(ctx context.Context, tx *Tx) (Event, error)
	// vouchKeys are the vouch keys of the identities at hand, by recipient. Their slots vouch
	// for the new signer.
	vouchKeys map[string][]byte
	// predecessor certifies the new signer. Nil: it is the vault's first signer.
	predecessor ssh.Signer
	// sheet says that the operator gets the new signer's fingerprint in a file.
	sheet bool
	// wrapped is the new key wrapped for slots, by slot id, if that was done before the locks
	// were taken.
	wrapped map[string]string
	// old is the database that a rotation copies from. fill sees it as "old". Nil otherwise.
	old *attachment
	// handOver is step 5, or nil.
	handOver func(ctx context.Context) error
	// undoHandOver undoes handOver if the vault is not made after all, or nil.
	undoHandOver func()
	// place says what is in the place of the new database.
	place place
	// replacedKey is the key id of the vault that is replaced.
	replacedKey KeyID
	// compared says that the keyring's anchor was compared with the database from which the new
	// one was made. So the anchor may be written.
	compared bool

	// The fields below are set by the steps.

	// aside is the path of the copy of the replaced database.
	aside string
	// replacedVault is the id of the vault that is replaced, if its key is in a keyring.
	replacedVault string
	// stripped says that side files of the unread database are being removed. From then on the
	// copy aside is the only complete one.
	stripped bool
	// unsettled is why settling after the commit was not finished, or nil.
	unsettled error
}

// place is what is in the place of a new database before the transition.
type place int

const (
	placeFree   place = iota // nothing but what an interrupted run may have left
	placeLost                // no database, but a slots file that names one: it is copied aside
	placeOwn                 // this vault under its old key
	placeOther               // another vault, closed: it is set aside, and replaced
	placeUnread              // the same, but it could not be opened: its side files are still there
)

// taken reports whether there is a database, which stays until the commit.
func (p place) taken() bool { return p == placeOwn || p.replaced() }

// replaced reports whether the database is another vault's.
func (p place) replaced() bool { return p == placeOther || p == placeUnread }

// newTransition returns a transition to a vault of generation 1 under a new key, which run wipes.
func newTransition(cfg Config, p paths, key *Key, keyring bool) *transition {
	now := cfg.now()
	return &transition{cfg: cfg, paths: p, key: key, compared: true, meta: Meta{
		VaultID:    uuid.NewString(),
		KeyID:      key.ID(),
		Generation: 1,
		Created:    now,
		KeyCreated: now,
		Keyring:    keyring,
	}}
}

// probeKeyring checks that the keyring answers, before anything is made. The answer must be
// that it has no item for the new key.
func probeKeyring(ctx context.Context, k Keyring, id KeyID) error {
	if k == nil {
		return fmt.Errorf("%w: the vault's key is in a keyring, but there is no keyring here for the new key", keyring.ErrUnavailable)
	}
	switch _, err := k.Get(ctx, id.String()); {
	case err == nil:
		return fmt.Errorf("%w: the keyring has an item for a new key that it was never given", ErrWrongKey)
	case !errors.Is(err, keyring.ErrNotFound):
		return err
	}
	return nil
}
