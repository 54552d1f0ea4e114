package backup

import (
	"fmt"
	"os"
)

// newSpool returns a file without a name in dir, for what is written before it is known
// to be whole. Only encrypted bytes go into it.
func newSpool(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".rbee-vault-*.tmp") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return f, nil
}
