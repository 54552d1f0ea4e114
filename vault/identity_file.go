package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// IdentityFile is a file to be created for a new identity.
type IdentityFile struct {
	Path string
	// Encode returns the file's content, which is wiped afterwards. Nil: [NewIdentity.File].
	Encode func(context.Context, NewIdentity) ([]byte, error)

	// again says that an interrupted run wrote the file, so it may be replaced.
	again bool
}

func (f IdentityFile) put(fsys durable.FS, content []byte) error {
	// A killed run may have left an unfinished write with an identity in it.
	if err := durable.RemoveParts(fsys, f.Path); err != nil {
		return fmt.Errorf("remove what an interrupted run left of %q: %w", f.Path, err)
	}
	put := durable.Create
	if f.again {
		put = durable.Replace
	}
	if err := put(fsys, f.Path, content); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %q", ErrFileExists, f.Path)
	} else if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// checkOutputs checks the paths of new identity files; see [CheckOutput].
func (p paths) checkOutputs(files []IdentityFile) error {
	for i, f := range files {
		if err := CheckOutput(f.Path, p.db); err != nil {
			return err
		}
		if slices.ContainsFunc(files[:i], func(other IdentityFile) bool { return other.Path == f.Path }) {
			return fmt.Errorf("%w: %q is given twice", ErrInvalid, f.Path)
		}
	}
	return nil
}

// handOver writes the identity into new files and calls show, if it is not nil. undo removes
// the files again. After an error there are no files.
func handOver(ctx context.Context, fsys durable.FS, n NewIdentity, files []IdentityFile, show func(context.Context, NewIdentity) error) (undoHandOver func(), err error) {
	written := map[string][sha256.Size]byte{}
	remove := func() {
		for path, sum := range written {
			if data, err := os.ReadFile(path); err == nil && sha256.Sum256(data) == sum {
				fsys.Remove(path)
				wipe(data)
			}
		}
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	for _, f := range files {
		encode := f.Encode
		if encode == nil {
			encode = func(_ context.Context, n NewIdentity) ([]byte, error) { return n.File(), nil }
		}
		if err := checkDir(filepath.Dir(f.Path)); err != nil {
			return nil, err
		}
		if ok, err := durable.Exists(f.Path); err != nil {
			return nil, err
		} else if ok && !f.again {
			return nil, fmt.Errorf("%w: %q", ErrFileExists, f.Path)
		}
		content, err := encode(ctx, n)
		if err != nil {
			return nil, err
		}
		defer wipe(content)
		if !f.again {
			// Recorded before the call, because a call can fail after it took effect.
			written[f.Path] = sha256.Sum256(content)
		}
		if err := f.put(fsys, content); err != nil {
			return nil, err
		}
	}
	if show != nil {
		err = show(ctx, n)
	}
	return remove, err
}

// removeRecoveryFile removes the recovery file of a vault that was not made after all, even if
// an interrupted run wrote it. Once no slot names its identity, a rerun would take the file for
// somebody else's.
func removeRecoveryFile(fsys durable.FS, file string, n NewIdentity) {
	if _, err := readRecovery(file, []string{n.Recipient}); err == nil {
		fsys.Remove(file)
	}
}

// CreateFile writes a secret into a new file of mode 0600. The file is complete and flushed to
// the disk, or it does not exist. It returns [ErrFileExists] if the path is taken, and
// [ErrInvalid] for a name that is reserved for a vault's own files.
func CreateFile(path string, data []byte) error {
	if err := CheckOutput(path, ""); err != nil {
		return err
	}
	return IdentityFile{Path: path}.put(durable.OS{}, data)
}

// ReplaceFile is [CreateFile] for a path that may be taken: what is there is replaced by one
// rename. If it returns an error, it is unchanged, or the flush of the directory failed.
func ReplaceFile(path string, data []byte) error {
	if err := CheckOutput(path, ""); err != nil {
		return err
	}
	return durable.Replace(durable.OS{}, path, data)
}
