package backup

import (
	"fmt"
	"os"
)

// unnamedFile makes a file without a name in dir, for what is written before it is known to be
// whole. Only encrypted bytes go into it. The caller closes it.
func unnamedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".rbee-vault-*.tmp") // mode 0600
	if err == nil {
		if err = os.Remove(f.Name()); err != nil {
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return f, nil
}
