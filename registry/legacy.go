package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// ReadLegacy reads the plain SQLite file of the earlier registry, with ten columns
// or twelve. It does not change the file, and reads its write-ahead log too. A ~ in
// ssh_key_path becomes home; without a home such a row is skipped.
//
// SQLite stores any value in any column, so every row is read leniently: a number
// may be text, a name may be a number. State that cannot be read (last contact,
// status, backends, devices) becomes unknown, with a warning. A row whose
// configuration cannot be read or is not valid is skipped, with the reason.
//
// A file without the table of nodes is ErrNotRegistry. A damaged file is
// ErrLegacyDamaged, because vault.ErrDamaged would mean the vault. Other errors of
// vault.OpenPlaintext pass through.
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
	return readLegacyRows(ctx, tx, home)
}

func readLegacyRows(ctx context.Context, tx *sql.Tx, home string) (set ImportSet, err error) {
	columns, err := legacyColumns(ctx, tx)
	if err != nil {
		return ImportSet{}, err
	}
	content := sha256.New()
	for row, err := range selectLegacyRows(ctx, tx, columns) {
		if err != nil {
			return ImportSet{}, err
		}
		fmt.Fprintf(content, "%d %#v\n", row.rowid, row.values)
		if err := set.add(row, home); err != nil {
			return ImportSet{}, err
		}
	}
	set.TwelveFields = true
	set.content = content.Sum(nil)
	return set, nil
}

// PutLegacyAside gives a plain SQLite file that was imported another name, and makes its own name
// a link to the vault of cfg. It returns where the file is; see [vault.PutPlaintextAside], whose
// errors pass through. set is what [ReadLegacy] returned: if the file has other rows by now, the
// error is ErrConflict, and nothing is changed.
func PutLegacyAside(ctx context.Context, cfg vault.Config, path string, set ImportSet) (at string, err error) {
	at, err = vault.PutPlaintextAside(ctx, cfg, path, func(ctx context.Context, tx *sql.Tx) error {
		now, err := readLegacyRows(ctx, tx, "")
		if err == nil && !bytes.Equal(now.content, set.content) {
			err = fmt.Errorf("%w: the file has changed since it was read", ErrConflict)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("put %q aside: %w", path, vault.PlaintextError(err))
	}
	return at, err
}

// legacyRow is one row of the file.
type legacyRow struct {
	rowid  int64
	values nodeValues
}

// add adds a row to the set, or the reason why it is skipped.
func (set *ImportSet) add(row legacyRow, home string) error {
	if err := set.checkRoom(); err != nil {
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
	set.addNode(n)
	return nil
}

// decode returns a normalized, valid node and what it lost. After an error the
// node has its name at most, and there are no warnings.
func (row *legacyRow) decode(home string) (n Node, warnings []string, err error) {
	warn := func(column int, what string) {
		warnings = append(warnings, nodeFields[column]+" "+what)
	}
	if n, err = row.decodeConfiguration(home, warn); err == nil {
		row.decodeState(&n, warn)
		n = n.normalized()
		err = n.validate()
	}
	if err != nil {
		return Node{Name: n.Name}, nil, err
	}
	return n, warnings, nil
}

// decodeConfiguration returns a node with unknown state. What cannot be read is
// an error.
func (row *legacyRow) decodeConfiguration(home string, warn func(column int, what string)) (n Node, err error) {
	n.SSHPort = DefaultSSHPort
	for _, column := range [...]struct {
		i     int
		field *string
	}{
		{colName, &n.Name},
		{colSSHHost, &n.SSHHost},
		{colSSHUser, &n.SSHUser},
		{colSSHKeyPath, &n.SSHKeyPath},
		{colGitRepoURL, &n.GitRepoURL},
		{colGitBranch, &n.GitBranch},
		{colInstallPath, &n.InstallPath},
	} {
		value := row.values[column.i]
		text, ok := legacyText(value)
		switch {
		case !ok:
			return n, &FieldError{Field: nodeFields[column.i], Rule: "must be text"}
		case value == nil && column.i != colSSHKeyPath:
			return n, &FieldError{Field: nodeFields[column.i], Rule: "must not be null"}
		}
		*column.field = text
	}
	n.SSHKeyPath = ExpandPath(home, n.SSHKeyPath)
	if value := row.values[colSSHPort]; value == nil {
		warn(colSSHPort, "was null and is now 22")
	} else if port, ok := legacyInteger(value); !ok || port < 1 || port > 65535 {
		return n, &FieldError{Field: "ssh_port", Rule: rulePort}
	} else {
		n.SSHPort = uint16(port)
	}
	return n, nil
}

// decodeState sets the state of n. What cannot be read stays unknown, with a
// warning.
func (row *legacyRow) decodeState(n *Node, warn func(column int, what string)) {
	if value := row.values[colLastConnected]; value != nil {
		if seconds, ok := legacyInteger(value); ok && validUnix(seconds) {
			n.LastConnected = time.Unix(seconds, 0)
		} else {
			warn(colLastConnected, "cannot be read and is now unknown")
		}
	}
	switch status, ok := legacyText(row.values[colStatus]); {
	case ok && Status(status).Valid():
		n.Status = Status(status)
	case ok && status == "reachable":
		// The only status that the programs of that registry ever wrote.
		n.Status = StatusOnline
	case !ok || status != "":
		warn(colStatus, fmt.Sprintf("%.40q is now unknown", status))
	}
	if text, ok := legacyText(row.values[colBackends]); !ok || text != "" {
		backends, err := parseBackends(text)
		if ok && err == nil && validateCapabilities(backends, nil) == nil {
			n.Backends = backends
		} else {
			warn(colBackends, "cannot be read and are now unknown")
		}
	}
	if text, ok := legacyText(row.values[colDevices]); !ok || text != "" {
		devices, err := parseDevices(text)
		if ok && err == nil && validateCapabilities(nil, devices) == nil {
			n.Devices = devices
		} else {
			warn(colDevices, "cannot be read and are now unknown")
		}
	}
}

// legacyText returns a value as text, if it is text or a whole number. NULL is "".
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

// legacyInteger returns a value as a whole number, if it is one in any type.
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
