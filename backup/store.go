package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// Store keeps backup files: a directory or a bucket. Nothing in it is trusted: what an
// object holds is proven by its signature, and by what the vault recorded.
type Store interface {
	// Put writes a new object. It never replaces one: the error then matches [ErrExists].
	// After any other error it is not known whether the object is there. The result has
	// Written, and Version and LockedUntil where there are any.
	Put(ctx context.Context, name string, body *io.SectionReader, sum [sha256.Size]byte) (Copy, error)
	// Objects lists every version of every backup file: of one name the newest first.
	Objects(ctx context.Context) iter.Seq2[Object, error]
	// Open reads a version of an object; "" is the first that was written, for Put never
	// writes a second. Without such an object the error matches [registry.ErrNotFound].
	Open(ctx context.Context, name, version string) (io.ReadCloser, error)
	// Remove deletes one version of an object; "" is the only one. A lock that forbids it:
	// [ErrLocked].
	Remove(ctx context.Context, name, version string) error
}

// Object is one version of an object in a [Store].
type Object struct {
	Name     string
	Version  string // "" where the store keeps no versions
	Size     int64  // bytes
	Modified time.Time
	Hidden   bool // a delete marker or a newer version stands before it
}

// Time returns when the object's name says that its backup was made; else when the store
// received it. It is a hint: whoever may write there chooses names.
func (o Object) Time() time.Time {
	stamp, _, _ := strings.Cut(strings.TrimPrefix(o.Name, namePrefix), "-")
	if t, err := time.Parse(nameTime, stamp); err == nil {
		return t
	}
	return o.Modified
}

// Newest lists the objects of a store, the one that seems to be the newest first. Of one
// name the version that was written first comes first: Put never writes a second.
func Newest(ctx context.Context, s Store) ([]Object, error) {
	var objects []Object
	for o, err := range s.Objects(ctx) {
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	slices.Reverse(objects) // times of versions may be the same
	slices.SortStableFunc(objects, func(a, b Object) int {
		return cmp.Or(b.Time().Compare(a.Time()), strings.Compare(b.Name, a.Name))
	})
	return objects, nil
}

// openStore returns the target's store. It does not yet reach out to it.
func openStore(ctx context.Context, t Target) (Store, error) {
	dir, ok := t.directory()
	if ok {
		return dirStore{dir}, nil
	}
	return openS3(ctx, t, storePatience)
}

// failedStore is a store that cannot be opened on this machine. Other targets are not to
// fail with it, so its error comes when it is used.
type failedStore struct{ err error }

// Put implements [Store].
func (s failedStore) Put(context.Context, string, *io.SectionReader, [sha256.Size]byte) (Copy, error) {
	return Copy{}, s.err
}

// Objects implements [Store].
func (s failedStore) Objects(context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) { yield(Object{}, s.err) }
}

// Open implements [Store].
func (s failedStore) Open(context.Context, string, string) (io.ReadCloser, error) { return nil, s.err }

// Remove implements [Store].
func (s failedStore) Remove(context.Context, string, string) error { return s.err }

// check implements checker.
func (s failedStore) check(context.Context, func(context.Context, string) error) (TargetCheck, error) {
	return TargetCheck{}, s.err
}

// writerStore is a Writer, which takes one file and keeps nothing.
type writerStore struct{ w io.Writer }

// Put implements [Store].
func (s writerStore) Put(ctx context.Context, _ string, body *io.SectionReader, _ [sha256.Size]byte) (Copy, error) {
	if _, err := io.Copy(s.w, contextReader{ctx, body}); err != nil {
		return Copy{}, err
	}
	if b, ok := s.w.(interface{ Flush() error }); ok { // a Writer with a buffer: until then nothing is written
		if err := b.Flush(); err != nil {
			return Copy{}, err
		}
	}
	return Copy{Written: time.Now()}, nil
}

// Objects implements [Store].
func (writerStore) Objects(context.Context) iter.Seq2[Object, error] {
	return func(func(Object, error) bool) {}
}

// Open implements [Store].
func (writerStore) Open(context.Context, string, string) (io.ReadCloser, error) {
	return nil, registry.ErrNotFound
}

// Remove implements [Store].
func (writerStore) Remove(context.Context, string, string) error { return registry.ErrNotFound }
