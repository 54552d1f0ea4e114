package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// dirStore is a directory.
type dirStore struct{ dir string }

// Put implements [Store].
func (s dirStore) Put(ctx context.Context, name string, body *io.SectionReader, sum [sha256.Size]byte) (Copy, error) {
	path := filepath.Join(s.dir, name)
	h := sha256.New()
	err := durable.CreateFrom(durable.OS{}, path, func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, h), contextReader{ctx, body})
		if err == nil && !bytes.Equal(h.Sum(nil), sum[:]) {
			err = fmt.Errorf("%w: what is read to be copied is not what was written", vault.ErrDamaged)
		}
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return Copy{}, fmt.Errorf("%q %w", path, ErrExists)
	}
	if errors.Is(err, fs.ErrNotExist) { // a disk that is not mounted, and no matter of the file's name
		return Copy{}, fmt.Errorf("directory %q: %w", s.dir, fs.ErrNotExist)
	}
	if err != nil {
		return Copy{}, err
	}
	return Copy{Written: time.Now()}, nil
}

// Objects implements [Store].
func (s dirStore) Objects(context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		entries, err := os.ReadDir(s.dir)
		if err != nil {
			yield(Object{}, err)
			return
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), fileSuffix) || !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !yield(Object{Name: e.Name(), Size: info.Size(), Modified: info.ModTime()}, nil) {
				return
			}
		}
	}
}

// Open implements [Store].
func (s dirStore) Open(_ context.Context, name, _ string) (io.ReadCloser, error) {
	if err := checkObjectName(name); err != nil {
		return nil, err
	}
	// Whoever else may write there could put a link or a pipe in the place of a backup.
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", registry.ErrNotFound, err)
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("%w: %w", vault.ErrDamaged, err)
	case err != nil:
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%w: %q is not a regular file", vault.ErrDamaged, f.Name()), err)
	}
	return f, nil
}

// Remove implements [Store].
func (s dirStore) Remove(_ context.Context, name, _ string) error {
	if err := checkObjectName(name); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", registry.ErrNotFound, err)
	}
	if err != nil {
		return err
	}
	return durable.OS{}.SyncDir(s.dir)
}

// checkObjectName refuses a name that leads out of its place.
func checkObjectName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("%w: %q is not the name of a backup", vault.ErrInvalid, name)
	}
	return nil
}
