package durable_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

// TestNothingIsReplaced: a new file, a link, and the rename that replaces a link never replace
// an existing file.
func TestNothingIsReplaced(t *testing.T) {
	for name, call := range map[string]func(from, to string) error{
		"create": func(_, to string) error { _, err := (durable.OS{}).CreateNew(to); return err },
		"link":   durable.OS{}.Link,
		"rename": durable.RenameNew,
	} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		put(t, from, "new")
		put(t, to, "old")
		if err := call(from, to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(map[string]string{"from": "new", "to": "old"}, files(t, dir)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "from"), "new")
	if err := durable.RenameNew(filepath.Join(dir, "from"), filepath.Join(dir, "to")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"to": "new"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestFlushesAreAsked: the kernel is really called: it returns an error if it cannot flush.
func TestFlushesAreAsked(t *testing.T) {
	if err := (durable.OS{}).Sync("/dev/null"); err == nil {
		t.Error("/dev/null was flushed")
	}
	if err := (durable.OS{}).SyncDir("/proc"); err == nil {
		t.Error("/proc was flushed")
	}
}
