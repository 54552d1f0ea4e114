package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/sqlcipher"
)

// mustExist returns an error if there is no database: [ErrMissing] if the slots file names one,
// else [ErrNoVault].
func mustExist(p paths) error {
	if ok, err := durable.Exists(p.db); err != nil || ok {
		return err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return err
	}
	if file.present() && !file.interrupted(p) {
		return missing(p)
	}
	return fmt.Errorf("%w at %q", ErrNoVault, p.db)
}

func missing(p paths) error {
	return fmt.Errorf("%w: there is a slots file %q, but no %q", ErrMissing, p.slots, p.db)
}

// interrupted reports whether an interrupted init or restore left the slots file, beside which
// there is no database. Then all its entries are pending. If none of them has slots, the run ended
// before it had built a database. Otherwise what it built is at the place of the new database.
func (f slotsFile) interrupted(p paths) bool {
	announced := len(f.entries) > 0 // by entries without slots
	for _, e := range f.entries {
		if e.State != statePending {
			return false
		}
		if len(e.Slots) > 0 {
			announced = false
		}
	}
	return f.err == nil && (announced || p.unfinished(f))
}

// leftovers lists what an interrupted run left: the database that it was building, and
// unfinished writes. If the file at that place was not left by an interrupted run, it may be
// somebody's database: it is kept, with SQLite's files beside it.
func (p paths) leftovers(file slotsFile) (left, kept []string) {
	var building []string
	for _, path := range append(sqlcipher.SideFiles(p.fresh), p.fresh) { // the database last: it shows what the others are
		if ok, err := durable.Exists(path); ok || err != nil {
			building = append(building, path)
		}
	}
	if p.unfinished(file) {
		return append(p.parts(), building...), nil
	}
	return p.parts(), building
}

// unfinished reports whether an interrupted run left the file at the place of the new database.
// Its content decides: it is empty, or it begins with a key id that has a pending entry in the
// slots file. It may also be a second name of the database in place, left by an interrupted
// commit.
func (p paths) unfinished(file slotsFile) bool {
	info, err := os.Lstat(p.fresh)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	if info.Size() == 0 {
		return true
	}
	if db, err := os.Stat(p.db); err == nil && os.SameFile(db, info) {
		return true
	}
	if durable.Links(info) > 1 {
		return false // it was put in place, and later moved away
	}
	var id KeyID
	err = sqlcipher.Unclaimed(info, func() error {
		f, err := os.Open(p.fresh)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.ReadFull(f, id[:])
		return err
	})
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	if id == (KeyID{}) {
		return true // a power cut: nothing of its content had reached the disk
	}
	e := file.find(id)
	return e != nil && e.State == statePending
}

// removeLeftovers removes them. The caller holds the write lock, so nobody else is building or
// writing.
func (p paths) removeLeftovers(fsys durable.FS, file slotsFile) error {
	left, _ := p.leftovers(file)
	for _, path := range left {
		if err := durable.RemoveIfExists(fsys, path); err != nil {
			return err
		}
	}
	return fsys.SyncDir(p.dir)
}

// beforeCopies lists the copies under a key that migrations set aside. Each is followed by its
// slots file.
func (p paths) beforeCopies(id KeyID) []string {
	var found []string
	for _, path := range p.of(beforeDatabase) {
		if of, err := peekKeyID(path); err == nil && of == id {
			found = append(found, path, path+".slots")
		}
	}
	return found
}

// noSideFiles returns [ErrMissing] for the side files of a database that is not there.
func noSideFiles(p paths) error {
	for _, path := range sqlcipher.SideFiles(p.db) {
		if ok, err := durable.Exists(path); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%w: there is %q, but no %q", ErrMissing, path, filepath.Base(p.db))
		}
	}
	return nil
}

// clearInterruptedRun prepares a place without a database. It deletes the keyring items of an
// interrupted run. The entries of that run stay until step 4 replaces them. It returns the
// recipients of their slots. If the slots file is not an interrupted run's, it names a database
// that is lost: then nothing is deleted.
//
// The keyring is asked even if useKeyring is false. But it must answer only if the new key is
// to be stored in it.
func clearInterruptedRun(ctx context.Context, cfg Config, p paths, useKeyring bool) (recipients []string, lost bool, err error) {
	if err := noSideFiles(p); err != nil {
		return nil, false, err
	}
	file, err := readSlotsFile(p.slots)
	if err != nil {
		return nil, false, err
	}
	if !file.present() {
		return nil, false, nil
	}
	if !file.interrupted(p) {
		return nil, true, nil
	}
	for _, e := range file.entries {
		for _, s := range e.Slots {
			recipients = append(recipients, s.Recipient)
		}
		switch {
		case !e.Keyring:
		case cfg.Keyring == nil:
			cfg.log().Warn("an interrupted run left a keyring item behind", "account", e.KeyID)
		default:
			err := cfg.Keyring.Delete(ctx, e.KeyID.String())
			if err != nil && useKeyring {
				return nil, false, fmt.Errorf("delete the keyring item of an interrupted run: %w", err)
			} else if err != nil {
				cfg.log().Warn("an interrupted run may have left a keyring item behind", "account", e.KeyID, "error", err)
			}
		}
	}
	return recipients, false, nil
}
