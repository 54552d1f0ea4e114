package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// ActionCreate is the audit log's action of a backup that is about to be written. Its
// subject is the sequence, its detail the place.
const ActionCreate vault.UrgentAction = "backup.create"

// CreateOptions says where a backup goes. Exactly one of Path, Dir and Writer
// must be set.
type CreateOptions struct {
	// Path is the new file's name; its directory must exist.
	Path string
	// Dir is the directory for a file with the default name. It is made with mode
	// 0700 where it is missing.
	Dir string
	// Writer receives the file instead.
	Writer io.Writer

	// Recipients can open the backup too, besides the vault's own recipients. They
	// must be of the vault's class. See [identity.ParseRecipient].
	Recipients []string
	// Program is the name and version of the program, for the manifest.
	Program string
	// Progress is called with the rows archived so far and in all. When both are the
	// same, the file is written. Nil: no reports.
	Progress func(done, total int64)
}

// Created describes a new backup.
type Created struct {
	Path      string // absolute; "-" for a Writer
	Sequence  int64
	Size      int64  // bytes
	SHA256    string // of the file, hex
	Signer    string // public key line
	Manifest  Manifest
	Unchanged bool // the registry is the same as in the last completed backup
}

// Create writes a backup of one moment of the vault. The file appears whole
// under its name or not at all, and never replaces another file. Memory use does
// not grow with the size of the members.
//
// The order: record the next sequence, write the file as
// [durable.CreateFrom] does, record that it is complete.
//
// Errors: [ErrExists]; [ErrNotRecorded], with the file in place, so Created is
// valid; [vault.ErrInvalid] for a recipient or for a Path that is reserved for a
// vault's own files; those of [vault.Vault.Update].
func Create(ctx context.Context, v *vault.Vault, opts CreateOptions) (Created, error) {
	if err := opts.prepare(v.Path()); err != nil {
		return Created{}, err
	}
	if err := opts.checkRecipients(ctx, v); err != nil {
		return Created{}, err
	}
	sequence, err := opts.begin(ctx, v)
	if err != nil {
		return Created{}, fmt.Errorf("begin backup: %w", err)
	}
	record, manifest, err := opts.write(ctx, v, sequence)
	if err != nil {
		return Created{}, fmt.Errorf("write backup: %w", err)
	}
	created := Created{
		Path:     record.Path,
		Sequence: sequence,
		Size:     record.Size,
		SHA256:   record.SHA256,
		Signer:   manifest.Signer,
		Manifest: manifest,
	}
	// The file is in place, so it is recorded even if ctx was cancelled.
	created.Unchanged, err = complete(context.WithoutCancel(ctx), v, record)
	if err != nil {
		return created, fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return created, nil
}

// begin records that a backup begins, and returns its sequence. The transaction
// ends before the file exists, so no two files ever have the same sequence.
func (o CreateOptions) begin(ctx context.Context, v *vault.Vault) (sequence int64, err error) {
	err = v.Update(ctx, func(tx *vault.Tx) (err error) {
		if sequence, err = insertBackup(ctx, tx); err != nil {
			return err
		}
		return tx.Audit(ctx, vault.Event{
			Action:  ActionCreate,
			Subject: fmt.Sprint(sequence),
			Detail:  strings.Join(append([]string{o.target()}, o.Recipients...), " "),
		})
	})
	return sequence, err
}

// write writes the file from one transaction.
func (o CreateOptions) write(ctx context.Context, v *vault.Vault, sequence int64) (record Record, m Manifest, err error) {
	inPlace := false
	err = v.View(ctx, func(tx *vault.Tx) error {
		a, err := newArchive(ctx, tx, filepath.Dir(v.Path()), sequence, o)
		if err != nil {
			return err
		}
		defer a.close()
		m = a.manifest
		if record, err = o.put(a.stream, m); err != nil {
			return err
		}
		inPlace = true
		record.Sequence, record.SumsSHA256, record.ContentHash = sequence, hashOf(a.sums), a.contentHash
		return nil
	})
	if inPlace {
		err = nil // ctx was cancelled before the read transaction ended: the file is good
	}
	return record, m, err
}

// complete records that the file is in place. It reports whether the registry is
// the same as in the last completed backup.
func complete(ctx context.Context, v *vault.Vault, r Record) (unchanged bool, err error) {
	err = v.Update(ctx, func(tx *vault.Tx) error {
		_, previous, err := selectPrevious(ctx, tx, r.Sequence)
		if err != nil {
			return err
		}
		unchanged = previous == r.ContentHash
		return completeBackup(ctx, tx, r)
	})
	return unchanged, err
}

// target names where the backup goes, for the audit log.
func (o CreateOptions) target() string {
	switch {
	case o.Writer != nil:
		return "-"
	case o.Path != "":
		return o.Path
	}
	return o.Dir
}

// prepare refuses what cannot work before a sequence is used. It makes Path or
// Dir absolute.
func (o *CreateOptions) prepare(db string) (err error) {
	switch {
	case o.Writer != nil:
		return nil
	case o.Path != "":
		if o.Path, err = absolute(o.Path); err != nil {
			return err
		}
		return checkNewFile(o.Path, db)
	case o.Dir != "":
		if o.Dir, err = absolute(o.Dir); err != nil {
			return err
		}
		return makeDir(o.Dir)
	}
	return fmt.Errorf("%w: no place is given for the backup", vault.ErrInvalid)
}

func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve path %q: %w", path, err)
	}
	return abs, nil
}

// checkNewFile checks that a backup can be created at path.
func checkNewFile(path, db string) error {
	if err := vault.CheckOutput(path, db); err != nil {
		return err
	}
	if ok, err := durable.Exists(path); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("%q %w", path, ErrExists)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("write backup: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("write backup: %q is not a directory", dir)
	}
	return nil
}

// makeDir makes the directory for backups where it is missing, and checks that
// it is private.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = durable.OS{}.SyncDir(filepath.Dir(dir))
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("make directory for backups: %w", err)
	}
	return vault.CheckPrivate(dir)
}

func (o CreateOptions) checkRecipients(ctx context.Context, v *vault.Vault) error {
	return v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.Recipients(ctx, o.Recipients...)
		return err
	})
}

// put puts in place what write writes. Of the record it sets what is known of
// the file.
func (o CreateOptions) put(write func(io.Writer) error, m Manifest) (Record, error) {
	var measured *measure
	measuring := func(w io.Writer) error {
		measured = newMeasure(w)
		err := write(measured)
		if b, ok := w.(interface{ Flush() error }); ok && err == nil {
			err = b.Flush() // a Writer with a buffer: until then the backup is not written
		}
		return err
	}
	path := "-"
	var err error
	if o.Writer != nil {
		err = measuring(o.Writer)
	} else {
		if path, err = o.path(m); err == nil {
			err = durable.CreateFrom(durable.OS{}, path, measuring)
		}
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%q %w", path, ErrExists)
		}
	}
	if err != nil {
		return Record{}, err
	}
	return Record{Path: path, Size: measured.size, SHA256: measured.hash()}, nil
}

// path is Path, or the first default name in Dir that is free.
func (o CreateOptions) path(m Manifest) (string, error) {
	if o.Path != "" {
		return o.Path, nil
	}
	created, err := wire.ParseTime(m.Created)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		path := filepath.Join(o.Dir, fileName(created, m.Sequence, n))
		if ok, err := durable.Exists(path); err != nil || !ok {
			return path, err
		}
	}
}

// fileName is a backup's default name. n is 1, or higher where the names before
// are taken.
func fileName(created time.Time, sequence int64, n int) string {
	suffix := ""
	if n > 1 {
		suffix = fmt.Sprintf("-%d", n)
	}
	return fmt.Sprintf("beehives-%s-%06d%s.tar.gz.age", created.Format("20060102T150405Z"), sequence, suffix)
}
