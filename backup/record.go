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

// Record is what the vault knows of one of its backups.
type Record struct {
	Sequence    int64
	Created     time.Time
	Path        string // absolute; "-": standard output; "": not completed
	Size        int64  // bytes
	SHA256      string // of the file
	SumsSHA256  string // of its SHA256SUMS
	ContentHash string // equal for two backups of the same registry
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

// FileState says what became of a backup's file.
type FileState string

// The states of a backup's file.
const (
	FileIncomplete FileState = "incomplete" // never came to be
	FileStreamed   FileState = "streamed"   // went to standard output
	FilePresent    FileState = "present"    // there, with its size
	FileIntact     FileState = "intact"     // there, with its hash
	FileMissing    FileState = "missing"
	FileChanged    FileState = "changed"
	FileUnreadable FileState = "unreadable"
)

// File looks at the backup's file: at its size, or with hash at all of it.
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
