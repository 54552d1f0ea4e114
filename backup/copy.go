package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// Copy is one copy of a backup, as the vault has recorded it.
type Copy struct {
	Target      string    // the target's name; "": a file that the operator named
	Name        string    // in the target; without one an absolute path, or "-": a Writer
	Written     time.Time // zero: it was not written, or that is not known
	Version     string    // of the object, where the target keeps versions
	LockedUntil time.Time // the target deletes it no earlier; zero: at any time
	Failed      string    // why it was not written; "": nothing is known to have failed
	Gone        time.Time // since when it is known to be removed; zero: it is not
}

// There reports whether the copy was written, and is not known to be removed.
func (c Copy) There() bool { return !c.Written.IsZero() && c.Gone.IsZero() }

// String names the copy as the command takes it: a path, or NAME/OBJECT.
func (c Copy) String() string {
	if c.Target == "" {
		return c.Name
	}
	return c.Target + "/" + c.Name
}

// FileState is the state of a copy.
type FileState string

// The states of a copy.
const (
	FileIncomplete FileState = "incomplete" // it was not written
	FileStreamed   FileState = "streamed"   // it went to a Writer
	FileRemote     FileState = "remote"     // it is in a target that must be asked
	FilePresent    FileState = "present"    // it has the recorded size
	FileIntact     FileState = "intact"     // it has the recorded size and hash
	FileMissing    FileState = "missing"    // no file has its name
	FileChanged    FileState = "changed"    // it has another size or hash
	FileUnreadable FileState = "unreadable" // it cannot be read
	FileRemoved    FileState = "removed"    // it was pruned
	FileUnknown    FileState = "unknown"    // it is in a target, and the vault has not recorded it
)

// State examines a copy of the backup without asking a target. It compares the size
// and, with hash, the content too.
func (r Record) State(c Copy, hash bool) FileState {
	switch {
	case !c.Gone.IsZero():
		return FileRemoved
	case c.Written.IsZero():
		return FileIncomplete
	case c.Target != "":
		return FileRemote
	case c.Name == "-":
		return FileStreamed
	}
	info, err := os.Stat(c.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return FileMissing
	case err != nil:
		return FileUnreadable
	case info.Size() != r.Size:
		return FileChanged
	case !hash:
		return FilePresent
	}
	f, err := os.Open(c.Name)
	if err != nil {
		return FileUnreadable
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return FileUnreadable
	}
	if hex.EncodeToString(h.Sum(nil)) != r.SHA256 {
		return FileChanged
	}
	return FileIntact
}
