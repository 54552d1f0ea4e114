package vault

import "context"

// Revision names a state of the database for this handle: two that are equal are the
// same state, and a later state is greater, whichever process changed it. It says
// nothing to another handle.
type Revision struct {
	epoch int64 // how often this handle took up another database
	data  int64 // SQLite's data_version, of one connection
}

// Before reports whether the state is an earlier one.
func (a Revision) Before(b Revision) bool {
	return a.epoch < b.epoch || a.epoch == b.epoch && a.data < b.data
}

// Revision returns the revision of the database as it is now. It costs a fraction of
// what reading a row does, and takes no lock that a writer waits for.
func (v *Vault) Revision(ctx context.Context) (Revision, error) {
	if err := v.enter(ctx); err != nil {
		return Revision{}, err
	}
	defer v.leave()
	data, err := v.db.Revision(ctx)
	return Revision{v.epoch, data}, err
}
