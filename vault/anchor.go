package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
)

// The anchor is the high-water mark of a vault. It is an item of the OS keyring and stores how
// far the vault had come: the generation of its key, and the head of its audit log. If an older
// copy of the database is put in place, with its older slots file, the anchor shows it.
//
// The anchor is compared if the keyring is the unlock method. Only a handle that has compared
// it writes it: at once after events of the vault, its slots and its backups, and after a
// checkpoint; within a minute after other audited changes; and on Close. The anchor has a lock
// of its own. The head of the log is read under that lock, so the anchor never goes back. The
// database may be ahead of the anchor, as after a kill, but never behind it.
//
// If the keyring refuses the anchor, no process tries again for some minutes. The modification
// time of the lock file says until when.
//
// The anchor of a vault that a restore replaced says so. If the files of that vault are put
// back in place, they are refused.

// anchor is the content of the keyring item: rba1:<vault id>:<generation>:<audit seq>:<audit
// hash>, with ":aside" at the end for a vault that was replaced.
type anchor struct {
	vaultID    string
	generation int64
	head       AuditHead
	aside      bool
}

const (
	anchorPrefix = "rba1"
	anchorAside  = ":aside"

	anchorWait      = 5 * time.Second        // how long the keyring may take to write it
	anchorShortWait = 300 * time.Millisecond // the same, for a handle that only read
	anchorBackOff   = 5 * time.Minute        // how long not to try again after the keyring refused it
)

func anchorAccount(vaultID string) string { return vaultID + "/anchor" }

func (a anchor) String() string {
	text := strings.Join([]string{
		anchorPrefix,
		a.vaultID,
		strconv.FormatInt(a.generation, 10),
		strconv.FormatInt(a.head.Seq, 10),
		hex.EncodeToString(a.head.Hash[:]),
	}, ":")
	if a.aside {
		text += anchorAside
	}
	return text
}

// parseAnchor parses exactly what String returns. The error for anything else is [ErrInvalid].
func parseAnchor(s string) (anchor, error) {
	var a anchor
	plain, aside := strings.CutSuffix(s, anchorAside)
	a.aside = aside
	fields := strings.Split(plain, ":")
	if len(fields) == 5 {
		a.vaultID = fields[1]
		a.generation, _ = strconv.ParseInt(fields[2], 10, 64)
		a.head.Seq, _ = strconv.ParseInt(fields[3], 10, 64)
		wire.ParseHex(a.head.Hash[:], fields[4])
	}
	if a.String() != s {
		return anchor{}, fmt.Errorf("%w: not an anchor", ErrInvalid)
	}
	return a, nil
}

// anchorItem is the value of the keyring item with a vault's anchor; "" if there is no item.
type anchorItem struct{ vaultID, value string }

// parse returns [keyring.ErrNotFound] if there is no item. A malformed item is [ErrRollback]:
// an attacker who can change the item could hide an anchor that way.
func (i anchorItem) parse() (anchor, error) {
	if i.value == "" {
		return anchor{}, keyring.ErrNotFound
	}
	a, err := parseAnchor(i.value)
	if err != nil || a.vaultID != i.vaultID {
		return anchor{}, fmt.Errorf("%w, or the keyring's item %q was changed: it is not an anchor of this vault", ErrRollback, anchorAccount(i.vaultID))
	}
	return a, nil
}

// readAnchor gets the anchor of a vault from the keyring. Errors are those of
// [anchorItem.parse] and of package keyring.
func readAnchor(ctx context.Context, k Keyring, vaultID string) (anchor, error) {
	value, err := k.Get(ctx, anchorAccount(vaultID))
	if err != nil {
		return anchor{}, err
	}
	return anchorItem{vaultID, value}.parse()
}

// setAnchorAside marks the anchor of a vault that was replaced. After that, its files do not
// open in place through the keyring.
func setAnchorAside(ctx context.Context, k Keyring, vaultID string) error {
	a, err := readAnchor(ctx, k, vaultID)
	if errors.Is(err, keyring.ErrNotFound) {
		a, err = anchor{vaultID: vaultID}, nil
	}
	if err != nil || a.aside {
		return err
	}
	a.aside = true
	return k.Set(ctx, anchorAccount(vaultID), a.String())
}
