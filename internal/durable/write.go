package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// partInfix marks a file that is still being written. Its name is NAME + partInfix + a random
// suffix. A killed process may leave one; [IsPart] recognizes it.
const partInfix = ".part-"

// Replace writes data to the file at path and replaces what is there. If it returns an error,
// the file at path is unchanged; only if the flush of the directory failed, it may be the new
// file. It is never a mixture.
//
// The order: create a part beside the file, write, fsync, close, rename, fsync the directory.
func Replace(fsys FS, path string, data []byte) error {
	return put(fsys, path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}, fsys.Rename)
}

// Create writes data to a new file at path. The file is complete or does not exist. If the path
// is taken, the error matches [fs.ErrExist].
func Create(fsys FS, path string, data []byte) error {
	return CreateFrom(fsys, path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// CreateFrom is [Create] for content that write writes as a stream. If write fails, its error
// is returned, and no file is left.
//
// The order: create a part beside the file, write, fsync, close, link to the name, unlink the
// part, fsync the directory.
func CreateFrom(fsys FS, path string, write func(io.Writer) error) error {
	return put(fsys, path, write, func(part, path string) error {
		if err := fsys.Link(part, path); err != nil {
			return err
		}
		return RemoveIfExists(fsys, part)
	})
}

// Copy makes a durable copy of the file at src. dst is a new file, as with [CreateFrom].
func Copy(fsys FS, src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return CreateFrom(fsys, dst, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

func put(fsys FS, path string, write func(io.Writer) error, commit func(part, path string) error) (err error) {
	part := NewPart(path)
	defer func() {
		if err != nil {
			fsys.Remove(part)
		}
	}()
	f, err := fsys.CreateNew(part)
	if err != nil {
		return fmt.Errorf("create %q: %w", part, err)
	}
	err = write(f)
	if err == nil {
		if err = f.Sync(); err != nil {
			err = fmt.Errorf("flush %q: %w", part, err)
		}
	}
	if e := f.Close(); err == nil && e != nil {
		err = fmt.Errorf("close %q: %w", part, e)
	}
	if err != nil {
		return err
	}
	if err := commit(part, path); err != nil {
		return fmt.Errorf("put %q in place: %w", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("flush directory of %q: %w", path, err)
	}
	return nil
}

// IsPart reports whether the name is that of an unfinished file, which an interrupted write
// left. Before the caller removes such a file, it must hold the lock that keeps writers away.
func IsPart(path string) bool {
	_, ok := PartOf(path)
	return ok
}

// NewPart returns a name for an unfinished file that is to become the file at path.
func NewPart(path string) string {
	var suffix [8]byte
	rand.Read(suffix[:])
	return path + partInfix + hex.EncodeToString(suffix[:])
}

// PartOf returns the path of the file that an unfinished file was to become.
func PartOf(path string) (whole string, ok bool) {
	at := strings.LastIndex(path, partInfix)
	if at < 0 || at == len(path)-len(filepath.Base(path)) || len(path) != at+len(partInfix)+16 {
		return "", false
	}
	if strings.Trim(path[at+len(partInfix):], "0123456789abcdef") != "" {
		return "", false
	}
	return path[:at], true
}

// RemoveParts removes the parts that interrupted writes of the file at path left. Nobody may be
// writing that file.
func RemoveParts(fsys FS, path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if IsPart(e.Name()) && strings.HasPrefix(e.Name(), filepath.Base(path)+partInfix) {
			if err := fsys.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Exists reports whether there is a file at path. If the file cannot be examined, it returns
// the error: such a file is not absent.
func Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return false, err
}

// RemoveIfExists removes the file at path. If there is none, it returns nil.
func RemoveIfExists(fsys FS, path string) error {
	if ok, err := Exists(path); err != nil || !ok {
		return err
	}
	return fsys.Remove(path)
}
