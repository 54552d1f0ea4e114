package faulttest

import (
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// FS is the real file system, or the Disk of the steps. Each call is a step.
type FS struct{ Steps *Steps }

var _ durable.FS = FS{}

func (f FS) fs() durable.FS {
	if f.Steps.Disk != nil {
		return f.Steps.Disk
	}
	return durable.OS{}
}

// CreateNew implements [durable.FS].
func (f FS) CreateNew(path string) (durable.File, error) {
	var created durable.File
	err := f.Steps.Do("create "+base(path), func() (err error) {
		created, err = f.fs().CreateNew(path)
		return err
	})
	if err != nil {
		if created != nil {
			created.Close()
		}
		return nil, err
	}
	return file{created, f.Steps}, nil
}

// Rename implements [durable.FS].
func (f FS) Rename(oldPath, newPath string) error {
	return f.Steps.Do("rename "+base(newPath), func() error { return f.fs().Rename(oldPath, newPath) })
}

// Link implements [durable.FS].
func (f FS) Link(oldPath, newPath string) error {
	return f.Steps.Do("link "+base(newPath), func() error { return f.fs().Link(oldPath, newPath) })
}

// Remove implements [durable.FS].
func (f FS) Remove(path string) error {
	return f.Steps.Do("remove "+base(path), func() error { return f.fs().Remove(path) })
}

// Symlink implements [durable.FS].
func (f FS) Symlink(target, path string) error {
	return f.Steps.Do("symlink "+base(path), func() error { return f.fs().Symlink(target, path) })
}

// Exchange implements [durable.FS].
func (f FS) Exchange(a, b string) error {
	return f.Steps.Do("exchange "+base(a), func() error { return f.fs().Exchange(a, b) })
}

// RenameNew implements [durable.FS].
func (f FS) RenameNew(oldPath, newPath string) error {
	return f.Steps.Do("rename "+base(newPath), func() error { return f.fs().RenameNew(oldPath, newPath) })
}

// Sync implements [durable.FS].
func (f FS) Sync(path string) error {
	return f.Steps.Do("sync "+base(path), func() error { return f.fs().Sync(path) })
}

// SyncDir implements [durable.FS].
func (f FS) SyncDir(dir string) error {
	return f.Steps.Do("sync directory", func() error { return f.fs().SyncDir(dir) })
}

type file struct {
	durable.File
	steps *Steps
}

// Write writes half of the bytes if the step fails before its effect: a disk gets full in the
// middle of a write.
func (f file) Write(p []byte) (n int, err error) {
	called := false
	err = f.steps.Do("write "+base(f.Name()), func() (err error) {
		called = true
		n, err = f.File.Write(p)
		return err
	})
	if !called {
		n, _ = f.File.Write(p[:len(p)/2])
	}
	return n, err
}

// Sync implements [durable.File].
func (f file) Sync() error { return f.steps.Do("fsync "+base(f.Name()), f.File.Sync) }

// Close always closes the file: a failed close leaves no open descriptor.
func (f file) Close() error {
	called := false
	err := f.steps.Do("close "+base(f.Name()), func() error {
		called = true
		return f.File.Close()
	})
	if !called {
		f.File.Close()
	}
	return err
}

// base returns a file's name without the parts that differ from run to run.
func base(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".part-")
	name, _, _ = strings.Cut(name, ".replaced-")
	return name
}
