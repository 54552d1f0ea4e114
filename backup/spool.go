package backup

import (
	"fmt"
	"io"
	"os"

	"filippo.io/age"
)

// spool keeps what must wait until what precedes it is known. It is a file without a name,
// encrypted under a key that is in memory only: whatever a kill leaves of it, nobody can read.
type spool struct {
	file *os.File
	key  *age.X25519Identity
	in   io.WriteCloser
}

// newSpool makes a spool in a directory. The caller closes it.
func newSpool(dir string) (*spool, error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	file, err := unnamedFile(dir)
	if err != nil {
		return nil, err
	}
	in, err := age.Encrypt(file, key.Recipient())
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("write spool: %w", err)
	}
	return &spool{file: file, key: key, in: in}, nil
}

// Write implements [io.Writer].
func (s *spool) Write(p []byte) (int, error) { return s.in.Write(p) }

// reader ends the writing and returns what was written.
func (s *spool) reader() (io.Reader, error) {
	if err := s.in.Close(); err != nil {
		return nil, fmt.Errorf("write spool: %w", err)
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	return age.Decrypt(s.file, s.key)
}

// close discards the spool.
func (s *spool) close() { s.file.Close() }
