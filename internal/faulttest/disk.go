package faulttest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// Disk is the real file system, and it remembers what was not flushed. So a test can cut the
// power: a file's content is lost until the file is flushed, and a change of names is lost
// until the directory is flushed. SQLite's own files are not written through it, because SQLite
// flushes them itself. A database that SQLite builds is lost until [durable.FS].Sync flushes
// it.
type Disk struct {
	// Lost is a directory on the same file system. It keeps files that may get their names
	// back. After a power cut it is gone. After a kill it holds what was not flushed for the
	// Disk of the next process: the power is still on.
	Lost string

	mu    sync.Mutex
	files []*diskFile
	names map[string]*diskFile // as the program sees them, for every path that it changed
	safe  map[string]*diskFile // as they are on the disk
	ops   []nameOp             // the changes between the two, in order
	kept  int
}

// saved is a Disk between two processes. Files are given by their index in the list; -1 is
// none.
type saved struct {
	Files       []diskFile
	Names, Safe map[string]int
	Ops         []savedOp
	Kept        int
}

type savedOp struct {
	File int
	Set  map[string]int
}

var _ durable.FS = (*Disk)(nil)

// diskFile is a file, whatever its names are.
type diskFile struct {
	ID      [2]uint64
	Written bool   // written through this FS: what is not flushed is lost
	Flushed int64  // how many bytes of it are flushed
	Keep    string // its name in Lost, if another name of it was changed
}

func fileID(info os.FileInfo) [2]uint64 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint64{uint64(st.Dev), st.Ino}
}

// nameOp is a change of names that is not flushed yet. A nil file means that the name was
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
	file := &diskFile{ID: fileID(info), Written: true}
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
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return durable.OS{}.Remove(path) // it comes back with a file that was in it
	}
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

// Symlink implements [durable.FS].
func (d *Disk) Symlink(target, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look(path)
	if err := (durable.OS{}).Symlink(target, path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link := &diskFile{ID: fileID(info)}
	d.files = append(d.files, link)
	d.change(link, map[string]*diskFile{path: link})
	return nil
}

// Exchange implements [durable.FS].
func (d *Disk) Exchange(a, b string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, second := d.look(a), d.look(b)
	if err := (durable.OS{}).Exchange(a, b); err != nil {
		return err
	}
	d.change(first, map[string]*diskFile{a: second, b: first})
	return nil
}

// RenameNew implements [durable.FS].
func (d *Disk) RenameNew(oldPath, newPath string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	file := d.look(oldPath)
	d.look(newPath)
	if err := (durable.OS{}).RenameNew(oldPath, newPath); err != nil {
		return err
	}
	d.change(file, map[string]*diskFile{oldPath: nil, newPath: file})
	return nil
}

// Sync implements [durable.FS].
func (d *Disk) Sync(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if file := d.look(path); file != nil {
		file.Written = false // from here on SQLite writes it
	}
	return nil
}

// SyncDir implements [durable.FS].
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
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
	for _, file := range d.files { // remove the kept files that can get no name any more
		if file.Keep != "" && !d.named(file) {
			os.Remove(file.Keep)
			file.Keep = ""
		}
	}
	return nil
}

// named reports whether a power cut may give the file another name.
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

// Unflushed reports whether a power cut would lose anything.
func (d *Disk) Unflushed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
	if len(d.ops) > 0 {
		return true
	}
	for path, file := range d.names {
		if file == nil || !file.Written {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Size() > file.Flushed {
			return true
		}
	}
	return false
}

// look returns the file at a path, or nil.
func (d *Disk) look(path string) *diskFile {
	d.load()
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
		if file.ID == fileID(info) {
			d.names[path], d.safe[path] = file, file
			return file
		}
	}
	file := &diskFile{ID: fileID(info)} // it existed before, or it is SQLite's
	d.files = append(d.files, file)
	d.names[path], d.safe[path] = file, file
	return file
}

// keepFile keeps a file that is about to lose a name.
func (d *Disk) keepFile(path string, file *diskFile) error {
	if file == nil || file.Keep != "" {
		return nil
	}
	if err := os.MkdirAll(d.Lost, 0o700); err != nil {
		return err
	}
	d.kept++
	file.Keep = filepath.Join(d.Lost, strconv.Itoa(d.kept))
	return os.Link(path, file.Keep)
}

func (d *Disk) change(file *diskFile, set map[string]*diskFile) {
	for path, f := range set {
		d.names[path] = f
	}
	d.ops = append(d.ops, nameOp{file, set})
}

// Cut makes the disk what it is after a power cut. Nothing may be written afterwards: the
// process must end. The fault says which of the unflushed changes have still reached the disk.
func (d *Disk) Cut(b Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
	ops := d.ops
	switch b {
	case CutAll:
		ops = nil
	case CutSome:
		ops = ops[:len(ops)/2]
	case CutLast: // the last change, and the earlier changes of its file
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
	for path, file := range d.names {
		if after[path] == file {
			continue
		}
		// SQLite flushes the directory with the first flush of a log. Before that, the names of
		// SQLite's files are lost too.
		if info, err := os.Stat(path + "-wal"); err == nil && info.Size() == 0 {
			must(durable.RemoveIfExists(durable.OS{}, path+"-wal"))
			must(durable.RemoveIfExists(durable.OS{}, path+"-shm"))
		}
	}
	for path, file := range after {
		if file == nil {
			continue
		}
		must(os.MkdirAll(filepath.Dir(path), 0o700))
		must(os.Link(file.Keep, path))
		info, err := os.Stat(path)
		must(err)
		if file.Written && info.Size() > file.Flushed {
			size := file.Flushed
			if b == CutSome {
				size += (info.Size() - size) / 2
			}
			must(os.Truncate(path, size))
		}
	}
	must(os.RemoveAll(d.Lost))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (d *Disk) state() string { return filepath.Join(d.Lost, "state") }

// load reads what a killed process left, once.
func (d *Disk) load() {
	if d.names != nil {
		return
	}
	d.names, d.safe = map[string]*diskFile{}, map[string]*diskFile{}
	data, err := os.ReadFile(d.state())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(err)
	var s saved
	must(json.Unmarshal(data, &s))
	for i := range s.Files {
		d.files = append(d.files, &s.Files[i])
	}
	named := func(set map[string]int) map[string]*diskFile {
		files := map[string]*diskFile{}
		for path, i := range set {
			files[path] = d.file(i)
		}
		return files
	}
	d.names, d.safe, d.kept = named(s.Names), named(s.Safe), s.Kept
	for _, op := range s.Ops {
		d.ops = append(d.ops, nameOp{d.file(op.File), named(op.Set)})
	}
}

func (d *Disk) file(i int) *diskFile {
	if i < 0 {
		return nil
	}
	return d.files[i]
}

// Save stores what was not flushed, for the Disk of the next process.
func (d *Disk) Save() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load()
	s := saved{Kept: d.kept}
	for _, file := range d.files {
		s.Files = append(s.Files, *file)
	}
	numbered := func(set map[string]*diskFile) map[string]int {
		files := map[string]int{}
		for path, file := range set {
			files[path] = slices.Index(d.files, file)
		}
		return files
	}
	s.Names, s.Safe = numbered(d.names), numbered(d.safe)
	for _, op := range d.ops {
		s.Ops = append(s.Ops, savedOp{slices.Index(d.files, op.file), numbered(op.set)})
	}
	data, err := json.Marshal(s)
	must(err)
	must(os.MkdirAll(d.Lost, 0o700))
	must(os.WriteFile(d.state(), data, 0o600))
}

// openFile is a file that is written through the Disk.
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
		f.file.Flushed = info.Size()
	}
	return err
}
