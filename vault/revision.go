package vault

import "context"

// Revision is a revision of the database, as one handle sees it. Two equal revisions are the
// same state. A later state has a greater revision, whichever process made the change.
// Revisions of two handles cannot be compared.
type Revision struct {
	epoch int64 // counts how often this handle switched to another database
	data  int64 // SQLite's data_version, of one connection
}

// Continues reports whether b is a later revision of the same database: there was no
// transition in between.
func (a Revision) Continues(b Revision) bool { return a.epoch == b.epoch && a.data <= b.data }

// Before reports whether a is the earlier revision.
func (a Revision) Before(b Revision) bool {
	return a.epoch < b.epoch || a.epoch == b.epoch && a.data < b.data
}

// Revision returns the present revision of the database. It takes a fraction of the time of
// reading a row, and no lock that a writer waits for.
func (v *Vault) Revision(ctx context.Context) (Revision, error) {
	if err := v.enter(ctx); err != nil {
		return Revision{}, err
	}
	defer v.leave()
	data, err := v.db.Revision(ctx)
	return Revision{v.epoch, data}, err
}
