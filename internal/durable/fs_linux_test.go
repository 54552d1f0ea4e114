package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
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

// TestPutAside: a file gets another name, and a link its own; nothing is replaced, and it can be
// undone.
func TestPutAside(t *testing.T) {
	dir := t.TempDir()
	path, aside := filepath.Join(dir, "db"), filepath.Join(dir, "aside")
	put(t, path, "old")
	put(t, filepath.Join(dir, "vault"), "new")
	put(t, aside, "mine")
	if err := durable.PutAside(path, aside, "vault"); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"db": "old", "vault": "new", "aside": "mine"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(aside); err != nil {
		t.Fatal(err)
	}
	if err := durable.PutAside(filepath.Join(dir, "none"), aside, "vault"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link is left: %v", err)
	}
	if err := os.Symlink("vault", aside); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	if err := durable.PutAside(path, aside, "vault"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"db": "new", "vault": "new", "aside": "old"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if err := durable.PutBack(path, aside); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]string{"db": "old", "vault": "new"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestOpeners: a process that has a file open is seen, under each of its names.
func TestOpeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, "text")
	if openers := durable.Openers(path); len(openers) > 0 {
		t.Errorf("%v", openers)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Stdin = f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if openers := durable.Openers(path + "2"); len(openers) != 1 || openers[0].PID != cmd.Process.Pid {
		t.Errorf("%v", openers)
	}
}
