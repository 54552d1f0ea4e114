package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Found is a backup file that is in a target, or should be.
type Found struct {
	Object
	Sequence int64     // 0: the vault has not recorded it
	State    FileState // FilePresent, FileChanged (its size), FileMissing or FileUnknown
}

// Inventory lists what is in a target, and what should be: by sequence, what the vault has not
// recorded first. Nothing that the target says is proven. store is the target's, opened by
// another credential than the vault's; nil: by the vault's.
func Inventory(ctx context.Context, v *vault.Vault, target string, store Store) ([]Found, error) {
	if store == nil {
		var err error
		if store, err = OpenTarget(ctx, v, target); err != nil {
			return nil, err
		}
	}
	records, err := List(ctx, v)
	if err != nil {
		return nil, err
	}
	type version struct{ name, version string }
	recorded := map[version]Found{}
	for _, r := range records {
		for _, c := range r.Copies {
			if c.Target == target && c.Gone.IsZero() {
				recorded[version{c.Name, c.Version}] = Found{Object{Name: c.Name, Version: c.Version, Size: r.Size}, r.Sequence, r.State(c, false)}
			}
		}
	}
	var found []Found
	for o, err := range store.Objects(ctx) {
		if err != nil {
			return nil, fmt.Errorf("list target %s: %w", target, err)
		}
		f := Found{Object: o, State: FileUnknown}
		if want, ok := recorded[version{o.Name, o.Version}]; ok {
			f.Sequence, f.State = want.Sequence, FilePresent
			if o.Size != want.Size {
				f.State = FileChanged
			}
			delete(recorded, version{o.Name, o.Version})
		}
		found = append(found, f)
	}
	for _, want := range recorded {
		if want.State == FileRemote { // else it was never written
			want.State = FileMissing
			found = append(found, want)
		}
	}
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	return found, nil
}
