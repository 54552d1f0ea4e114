package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Record is what the vault has recorded about one of its backups.
type Record struct {
	Sequence    int64
	Created     time.Time
	Path        string // absolute; "-": a Writer; "": the backup was not completed
	Size        int64  // bytes
	SHA256      string // of the file, in hex
	SumsSHA256  string // SHA-256 of its SHA256SUMS, in hex
	ContentHash string // the same for two backups of the same registry
}

// List returns the vault's backups, oldest first.
func List(ctx context.Context, v *vault.Vault) ([]Record, error) {
	var records []Record
	err := v.View(ctx, func(tx *vault.Tx) (err error) {
		records, err = selectBackups(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read backups: %w", err)
	}
	return records, nil
}

// FileState is the state of a backup's file.
type FileState string

// The states of a backup's file.
const (
	FileIncomplete FileState = "incomplete" // the backup was not completed
	FileStreamed   FileState = "streamed"   // it went to a Writer
	FilePresent    FileState = "present"    // it has the recorded size
	FileIntact     FileState = "intact"     // it has the recorded size and hash
	FileMissing    FileState = "missing"    // no file has its name
	FileChanged    FileState = "changed"    // it has another size or hash
	FileUnreadable FileState = "unreadable" // it cannot be read
)

// File examines the backup's file. It compares the size and, with hash, the
// content too.
func (r Record) File(hash bool) FileState {
	switch r.Path {
	case "":
		return FileIncomplete
	case "-":
		return FileStreamed
	}
	info, err := os.Stat(r.Path)
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
	f, err := os.Open(r.Path)
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
