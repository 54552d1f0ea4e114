package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// ReadLegacy reads the plain SQLite file of the registry that came before this
// one, with ten columns or twelve. It changes nothing in it, and sees what its
// write-ahead log still holds. A ~ in ssh_key_path becomes home; without a home
// such a row is skipped.
//
// SQLite takes any value in any column, so every row is read leniently: a
// number may be text, a name may be a number. What was learnt about a machine
// (last contact, status, backends, devices) and cannot be read becomes unknown,
// with a warning; a row whose configuration cannot be read or is not valid is
// skipped, with the reason.
//
// A file without the table of nodes is ErrNotRegistry; the errors of
// vault.OpenPlaintext come through, but for a damaged file, which is
// ErrLegacyDamaged: no vault is damaged.
func ReadLegacy(ctx context.Context, path, home string) (ImportSet, error) {
	set, err := readLegacy(ctx, path, home)
	err = vault.PlaintextError(err)
	if errors.Is(err, vault.ErrDamaged) {
		err = fmt.Errorf("%w: %v", ErrLegacyDamaged, err)
	}
	if err != nil {
		return ImportSet{}, fmt.Errorf("read registry %q: %w", path, err)
	}
	return set, nil
}

func readLegacy(ctx context.Context, path, home string) (set ImportSet, err error) {
	db, err := vault.OpenPlaintext(ctx, path)
	if err != nil {
		return ImportSet{}, err
	}
	defer db.Close()
	// One connection and one snapshot for both statements.
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return ImportSet{}, err
	}
	defer tx.Rollback()
	columns, err := selectLegacyColumns(ctx, tx)
	if err != nil {
		return ImportSet{}, err
	}
	for row, err := range selectLegacyRows(ctx, tx, columns) {
		if err != nil {
			return ImportSet{}, err
		}
		if err := set.add(row, home); err != nil {
			return ImportSet{}, err
		}
	}
	return set, nil
}

// legacyRow is one row: its number, then the values of nodeFields as the driver
// gives them.
type legacyRow struct {
	rowid  int64
	values [12]any
}

func (set *ImportSet) add(row legacyRow, home string) error {
	if err := set.room(); err != nil {
		return err
	}
	n, warnings, err := row.decode(home)
	name := rowName(n.Name, "rowid "+strconv.FormatInt(row.rowid, 10))
	if err != nil {
		set.skip(Problem{name, err.Error()})
		return nil
	}
	for _, w := range warnings {
		set.warn(Problem{name, w})
	}
	set.Nodes = append(set.Nodes, n)
	return nil
}

// decode returns a normalized, valid node, or an error and a node that has the
// name at most.
func (row *legacyRow) decode(home string) (n Node, warnings []string, err error) {
	warn := func(i int, what string) { warnings = append(warnings, nodeFields[i]+" "+what) }
	var texts [12]string
	for _, i := range [...]int{0, 1, 3, 4, 5, 6, 7} {
		text, ok := legacyText(row.values[i])
		switch {
		case !ok:
			return Node{Name: texts[0]}, nil, &FieldError{Field: nodeFields[i], Rule: "must be text"}
		case row.values[i] == nil && i != 4:
			return Node{Name: texts[0]}, nil, &FieldError{Field: nodeFields[i], Rule: "must not be null"}
		}
		texts[i] = text
	}
	n = Node{
		Name:        texts[0],
		SSHHost:     texts[1],
		SSHPort:     DefaultSSHPort,
		SSHUser:     texts[3],
		SSHKeyPath:  ExpandPath(home, texts[4]),
		GitRepoURL:  texts[5],
		GitBranch:   texts[6],
		InstallPath: texts[7],
		Status:      StatusUnknown,
	}
	if row.values[2] == nil {
		warn(2, "was null and is now 22")
	} else if port, ok := legacyInteger(row.values[2]); !ok || port < 1 || port > 65535 {
		return Node{Name: n.Name}, nil, &FieldError{Field: "ssh_port", Rule: rulePort}
	} else {
		n.SSHPort = uint16(port)
	}
	if row.values[8] != nil {
		if seconds, ok := legacyInteger(row.values[8]); ok && validUnix(seconds) {
			n.LastConnected = time.Unix(seconds, 0)
		} else {
			warn(8, "cannot be read and is now unknown")
		}
	}
	switch status, ok := legacyText(row.values[9]); {
	case ok && Status(status).Valid():
		n.Status = Status(status)
	case ok && status == "reachable":
		// The only status that the original's programs ever wrote.
		n.Status = StatusOnline
	case !ok || status != "":
		warn(9, fmt.Sprintf("%.40q is now unknown", status))
	}
	if text, ok := legacyText(row.values[10]); !ok || text != "" {
		n.Backends, err = parseBackends(text)
		if err == nil {
			err = validateCapabilities(n.Backends, nil)
		}
		if !ok || err != nil {
			n.Backends = nil
			warn(10, "cannot be read and are now unknown")
		}
	}
	if text, ok := legacyText(row.values[11]); !ok || text != "" {
		n.Devices, err = parseDevices(text)
		if err == nil {
			err = validateCapabilities(nil, n.Devices)
		}
		if !ok || err != nil {
			n.Devices = nil
			warn(11, "cannot be read and are now unknown")
		}
	}
	n = n.normalized()
	if err := n.validate(); err != nil {
		return Node{Name: n.Name}, nil, err
	}
	return n, warnings, nil
}

// legacyText reads any value that has one text form; NULL is "".
func legacyText(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, utf8.ValidString(v)
	case []byte:
		return string(v), utf8.Valid(v)
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	return "", false
}

// legacyInteger reads any value that is a whole number.
func legacyInteger(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	case []byte:
		return legacyInteger(string(v))
	}
	return 0, false
}
