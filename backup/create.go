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

// CreateOptions says where a backup goes. One of Path, Dir and Writer is
// needed.
type CreateOptions struct {
	// Path is the new file's name; its directory must exist.
	Path string
	// Dir is where the file goes under its default name; it is made, mode 0700,
	// when it is not there.
	Dir string
	// Writer receives the file instead.
	Writer io.Writer

	// Recipients are encrypted to besides the vault's own; they must be of its
	// class. See [identity.ParseRecipient].
	Recipients []string
	// Program stands in the manifest: name and version.
	Program string
	// Progress is told how many bytes of how many were archived. Nil: nobody.
	Progress func(done, total int64)
}

// Created tells of a backup.
type Created struct {
	Path      string // absolute; "-" for a Writer
	Sequence  int64
	Size      int64  // bytes
	SHA256    string // of the file, hex
	Signer    string // public key line
	Manifest  Manifest
	Unchanged bool // the registry is as it was in the last completed backup
}

// Create writes a backup of one moment of the vault. The file appears whole
// under its name or not at all, and never over another. Memory use does not
// grow with the vault.
//
// Errors: [ErrExists], [ErrNotRecorded] (with a file in place, so Created is
// valid), [vault.ErrInvalid] for a recipient or for a Path that is reserved for a
// vault's own files, those of [vault.Vault.Update].
func Create(ctx context.Context, v *vault.Vault, opts CreateOptions) (Created, error) {
	if err := opts.prepare(v.Path()); err != nil {
		return Created{}, err
	}
	if err := opts.checkRecipients(ctx, v); err != nil {
		return Created{}, err
	}
	// The sequence is taken before the file exists: no two files ever share one.
	var sequence int64
	err := v.Update(ctx, func(tx *vault.Tx) (err error) {
		if sequence, err = insertBackup(ctx, tx); err != nil {
			return err
		}
		return tx.Audit(ctx, vault.Event{Action: "backup.create", Subject: fmt.Sprint(sequence), Detail: strings.Join(append([]string{opts.target()}, opts.Recipients...), " ")})
	})
	if err != nil {
		return Created{}, fmt.Errorf("begin backup: %w", err)
	}
	var done Record
	var manifest Manifest
	err = v.View(ctx, func(tx *vault.Tx) error {
		a, err := measureArchive(ctx, tx, sequence, opts)
		if err != nil {
			return err
		}
		manifest = a.manifest
		done, err = opts.put(func(w io.Writer) error { return a.stream(ctx, w) }, a.manifest)
		done.Sequence, done.SumsSHA256, done.ContentHash = sequence, hashOf(a.sums), a.contentHash
		return err
	})
	if err != nil {
		return Created{}, fmt.Errorf("write backup: %w", err)
	}
	created := Created{Path: done.Path, Sequence: sequence, Size: done.Size, SHA256: done.SHA256, Signer: manifest.Signer, Manifest: manifest}
	err = v.Update(context.WithoutCancel(ctx), func(tx *vault.Tx) error {
		_, before, err := selectPrevious(ctx, tx, sequence)
		if err != nil {
			return err
		}
		created.Unchanged = before == done.ContentHash
		return completeBackup(ctx, tx, done)
	})
	if err != nil {
		return created, fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return created, nil
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

// prepare makes what can be made, and refuses what cannot work, before a
// sequence is used up.
func (o *CreateOptions) prepare(db string) error {
	switch {
	case o.Writer != nil:
		return nil
	case o.Path != "":
		abs, err := filepath.Abs(o.Path)
		if err != nil {
			return fmt.Errorf("resolve path %q: %w", o.Path, err)
		}
		o.Path = abs
		if err := vault.CheckOutput(abs, db); err != nil {
			return err
		}
		if ok, err := durable.Exists(abs); err != nil {
			return err
		} else if ok {
			return fmt.Errorf("%q %w", abs, ErrExists)
		}
		if info, err := os.Stat(filepath.Dir(abs)); err != nil {
			return fmt.Errorf("write backup: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("write backup: %q is not a directory", filepath.Dir(abs))
		}
		return nil
	case o.Dir == "":
		return fmt.Errorf("%w: no place for the backup given", vault.ErrInvalid)
	}
	abs, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("resolve path %q: %w", o.Dir, err)
	}
	o.Dir = abs
	if err := os.Mkdir(abs, 0o700); err == nil {
		if err := (durable.OS{}).SyncDir(filepath.Dir(abs)); err != nil {
			return fmt.Errorf("make directory for backups: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory for backups: %w", err)
	}
	return vault.CheckPrivate(abs)
}

func (o CreateOptions) checkRecipients(ctx context.Context, v *vault.Vault) error {
	return v.View(ctx, func(tx *vault.Tx) error {
		_, err := tx.Recipients(ctx, o.Recipients...)
		return err
	})
}

// put lets write fill the file, and puts it in place.
func (o CreateOptions) put(write func(io.Writer) error, m Manifest) (Record, error) {
	var measured *measure
	through := func(w io.Writer) error {
		measured = newMeasure(w)
		err := write(measured)
		if b, ok := w.(interface{ Flush() error }); ok && err == nil {
			err = b.Flush() // what is still in a buffer is not written
		}
		return err
	}
	path := "-"
	var err error
	switch {
	case o.Writer != nil:
		err = through(o.Writer)
	case o.Path != "":
		path = o.Path
		err = durable.CreateFrom(durable.OS{}, path, through)
	default:
		created, _ := wire.ParseTime(m.Created)
		for n := 1; ; n++ {
			path = filepath.Join(o.Dir, fileName(created, m.Sequence, n))
			if ok, e := durable.Exists(path); e != nil || !ok {
				break
			}
		}
		err = durable.CreateFrom(durable.OS{}, path, through)
	}
	if errors.Is(err, fs.ErrExist) {
		return Record{}, fmt.Errorf("%q %w", path, ErrExists)
	} else if err != nil {
		return Record{}, err
	}
	return Record{Path: path, Size: measured.size, SHA256: measured.hash()}, nil
}

// fileName is a backup's default name; n counts up where one is taken.
func fileName(created time.Time, sequence int64, n int) string {
	suffix := ""
	if n > 1 {
		suffix = fmt.Sprintf("-%d", n)
	}
	return fmt.Sprintf("beehives-%s-%06d%s.tar.gz.age", created.Format("20060102T150405Z"), sequence, suffix)
}
