package faulttest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Disk is the real file system with a memory of what was not flushed, so that a
// test can cut the power: a file's content is lost until it is flushed, and a
// change of names until the directory is. SQLite's own files are not written
// through it: SQLite flushes those itself. A database that SQLite builds is lost
// until it was flushed by [durable.FS].Sync.
type Disk struct {
	// Lost is a directory on the same file system, where files are kept that may
	// get their names back. It must not be there, and is gone after the cut.
	Lost string

	mu    sync.Mutex
	files []*diskFile
	names map[string]*diskFile // as the program sees them, of every path that it changed
	safe  map[string]*diskFile // as they are on the disk
	ops   []nameOp             // what lies between, in their order
	kept  int
}

var _ durable.FS = (*Disk)(nil)

// diskFile is a file, by whatever name.
type diskFile struct {
	info    os.FileInfo
	written bool   // through the seam: what is not flushed is lost
	flushed int64  // how much of it was
	keep    string // its name in Lost, where it has lost another
}

// nameOp is a change of names that was not flushed yet. A nil file: the name was
// removed.
type nameOp struct {
	file *diskFile // whose names changed
	set  map[string]*diskFile
}

// CreateNew implements [durable.FS].
func (d *Disk) CreateNew(path string) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file := &diskFile{info: info, written: true}
	d.files = append(d.files, file)
	d.change(file, map[string]*diskFile{path: file})
	return openFile{f, d, file}, nil
}

// Rename implements [durable.FS].
func (d *Disk) Rename(oldPath, newPath string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	file, replaced := d.look(oldPath), d.look(newPath)
	if err := d.keepFile(newPath, replaced); err != nil {
		return err
	}
	if err := (durable.OS{}).Rename(oldPath, newPath); err != nil {
		return err
	}
	d.change(file, map[string]*diskFile{oldPath: nil, newPath: file})
	return nil
}

// Link implements [durable.FS].
func (d *Disk) Link(oldPath, newPath string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	file := d.look(oldPath)
	d.look(newPath)
	if err := (durable.OS{}).Link(oldPath, newPath); err != nil {
		return err
	}
	d.change(file, map[string]*diskFile{newPath: file})
	return nil
}

// Remove implements [durable.FS].
func (d *Disk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	file := d.look(path)
	if err := d.keepFile(path, file); err != nil {
		return err
	}
	if err := (durable.OS{}).Remove(path); err != nil {
		return err
	}
	d.change(file, map[string]*diskFile{path: nil})
	return nil
}

// Sync implements [durable.FS].
func (d *Disk) Sync(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if file := d.look(path); file != nil {
		file.written = false // from here on it is SQLite's
	}
	return nil
}

// SyncDir implements [durable.FS].
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, file := range d.names {
		if filepath.Dir(path) == filepath.Clean(dir) {
			d.safe[path] = file
		}
	}
	var left []nameOp
	for _, op := range d.ops {
		for path := range op.set {
			if filepath.Dir(path) != filepath.Clean(dir) {
				left = append(left, op)
				break
			}
		}
	}
	d.ops = left
	for _, file := range d.files { // nothing gives it a name any more
		if file.keep != "" && !d.named(file) {
			os.Remove(file.keep)
			file.keep = ""
		}
	}
	return nil
}

// named reports whether a cut may give the file another name.
func (d *Disk) named(file *diskFile) bool {
	for path, f := range d.safe {
		if f == file && d.names[path] != file {
			return true
		}
	}
	for _, op := range d.ops {
		if op.file == file {
			return true
		}
	}
	return false
}

// Unflushed reports whether a cut would lose something.
func (d *Disk) Unflushed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ops) > 0 {
		return true
	}
	for path, file := range d.names {
		if file == nil || !file.written {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Size() > file.flushed {
			return true
		}
	}
	return false
}

// look returns the file at a path, or nil.
func (d *Disk) look(path string) *diskFile {
	if d.names == nil {
		d.names, d.safe = map[string]*diskFile{}, map[string]*diskFile{}
	}
	if _, known := d.names[path]; known {
		if file := d.names[path]; file != nil {
			return file
		}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, known := d.names[path]; !known {
			d.names[path], d.safe[path] = nil, nil
		}
		return nil
	} else if err != nil {
		panic(err)
	}
	for _, file := range d.files {
		if os.SameFile(file.info, info) {
			d.names[path], d.safe[path] = file, file
			return file
		}
	}
	file := &diskFile{info: info} // it was there before, or is SQLite's
	d.files = append(d.files, file)
	d.names[path], d.safe[path] = file, file
	return file
}

// keepFile keeps a file that is about to lose a name.
func (d *Disk) keepFile(path string, file *diskFile) error {
	if file == nil || file.keep != "" {
		return nil
	}
	if err := os.MkdirAll(d.Lost, 0o700); err != nil {
		return err
	}
	d.kept++
	file.keep = filepath.Join(d.Lost, strconv.Itoa(d.kept))
	return os.Link(path, file.keep)
}

func (d *Disk) change(file *diskFile, set map[string]*diskFile) {
	for path, f := range set {
		d.names[path] = f
	}
	d.ops = append(d.ops, nameOp{file, set})
}

// Cut makes the disk what it is after a power cut. Nothing may be written
// afterwards: the process must end. The blow says what of the changes that were
// not flushed has reached the disk all the same.
func (d *Disk) Cut(b Blow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	ops := d.ops
	switch b {
	case CutAll:
		ops = nil
	case CutSome:
		ops = ops[:len(ops)/2]
	case CutLast: // the last change, and what its file needs for it
		ops = nil
		for _, op := range d.ops {
			if op.file == d.ops[len(d.ops)-1].file {
				ops = append(ops, op)
			}
		}
	}
	after := map[string]*diskFile{}
	for path, file := range d.safe {
		after[path] = file
	}
	for _, op := range ops {
		for path, file := range op.set {
			after[path] = file
		}
	}
	for path, file := range d.names {
		must(d.keepFile(path, file))
	}
	for path, file := range d.names {
		if file != nil || after[path] != nil {
			must(durable.RemoveIfExists(durable.OS{}, path))
		}
	}
	for path, file := range after {
		if file == nil {
			continue
		}
		must(os.Link(file.keep, path))
		info, err := os.Stat(path)
		must(err)
		if file.written && info.Size() > file.flushed {
			size := file.flushed
			if b == CutSome {
				size += (info.Size() - size) / 2
			}
			must(os.Truncate(path, size))
		}
	}
	must(os.RemoveAll(d.Lost))
}

// openFile is a file that is being written through the seam.
type openFile struct {
	*os.File
	disk *Disk
	file *diskFile
}

// Sync implements [durable.File].
func (f openFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	info, err := f.Stat()
	if err == nil {
		f.file.flushed = info.Size()
	}
	return err
}
