package backup

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// namePattern matches the names that [Create] gives: of a file in a directory, which may
// end in a number, and of an object.
var namePattern = regexp.MustCompile(`^` + namePrefix + `(\d{8}T\d{6}Z)-(\d{6,})(?:-\d+|-[0-9a-f]{16})?` + regexp.QuoteMeta(fileSuffix) + `$`)

// CheckName compares what a backup says about itself with its name, which may be the path
// of a file or of an object. A name that [Create] gave to another backup is
// [ErrOtherBackup]: nobody has to sign anything to call an old backup a new one. Any other
// name says nothing.
func CheckName(name string, c Claim) error {
	m := namePattern.FindStringSubmatch(path.Base(filepath.ToSlash(name)))
	if m == nil {
		return nil
	}
	created, err := wire.ParseTime(c.Created)
	if err != nil {
		return fmt.Errorf("%w: when it was created", ErrDamaged)
	}
	sequence, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || sequence != c.Sequence || m[1] != created.UTC().Format(nameTime) {
		return fmt.Errorf("%w: it is backup %d of %s", ErrOtherBackup, c.Sequence, c.Created)
	}
	return nil
}

// Check returns [ErrOtherBackup] for any backup but the recorded one.
func (r Record) Check(c Claim) error {
	if c.SumsSHA256 != r.SumsSHA256 {
		return fmt.Errorf("%w: it is backup %d of %s, where the vault recorded backup %d of %s",
			ErrOtherBackup, c.Sequence, c.Created, r.Sequence, wire.FormatTime(r.Created))
	}
	return nil
}
