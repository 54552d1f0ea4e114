package vault

import (
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// setAside is step 3.
func (t *transition) setAside() error {
	if err := t.nameAside(); err != nil {
		return err
	}
	// The database comes first: whether the name is taken is decided by this file.
	suffixes := []string{"", ".slots"}
	if t.place == placeUnread {
		suffixes = append(suffixes, "-wal", "-journal")
	}
	for _, suffix := range suffixes {
		ok, err := durable.Exists(t.paths.db + suffix)
		if err == nil && ok {
			err = durable.Copy(t.cfg.fs(), t.paths.db+suffix, t.aside+suffix)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nameAside chooses a free name for the vault that is set aside.
func (t *transition) nameAside() error {
	base := t.paths.replaced(t.cfg.now())
	t.aside = base
	for n := 2; ; n++ {
		if ok, err := durable.Exists(t.aside); err != nil || !ok {
			return err
		}
		t.aside = fmt.Sprintf("%s-%d", base, n)
	}
}

// removeAside removes the copies of a database that was not replaced after all.
func (t *transition) removeAside() {
	if t.aside == "" || t.stripped {
		return
	}
	for _, suffix := range []string{"", "-wal", "-journal", ".slots"} {
		durable.RemoveIfExists(t.cfg.fs(), t.aside+suffix)
	}
}
