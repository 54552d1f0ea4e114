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
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
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
	path, aside, link := filepath.Join(dir, "db"), filepath.Join(dir, "aside"), filepath.Join(dir, "db.link")
	put(t, path, "old")
	put(t, filepath.Join(dir, "vault"), "new")
	refused := func(what, from string, want map[string]string) {
		t.Helper()
		got, err := durable.PutAside(durable.OS{}, from, aside, "vault")
		if err == nil || got != from {
			t.Errorf("%s: %s, %v", what, got, err)
		}
		if diff := cmp.Diff(want, files(t, dir)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	put(t, aside, "mine")
	refused("a file aside", path, map[string]string{"db": "old", "vault": "new", "aside": "mine"})
	if err := os.Rename(aside, link); err != nil {
		t.Fatal(err)
	}
	refused("a file in the way", path, map[string]string{"db": "old", "vault": "new", "db.link": "mine"})
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	refused("no file", filepath.Join(dir, "none"), map[string]string{"db": "old", "vault": "new"})
	if err := os.Symlink("vault", link); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	if at, err := durable.PutAside(durable.OS{}, path, aside, "vault"); err != nil || at != aside {
		t.Error(at, err)
	}
	if diff := cmp.Diff(map[string]string{"db": "new", "vault": "new", "aside": "old"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
	if at, err := durable.PutBack(durable.OS{}, path, aside); err != nil || at != path {
		t.Error(at, err)
	}
	if diff := cmp.Diff(map[string]string{"db": "old", "vault": "new"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestPutAsideFaults: whatever call fails, before or after its effect, the file is where PutAside
// says, once, and there is always something at its path.
func TestPutAsideFaults(t *testing.T) {
	counted := &faulttest.Steps{}
	run := func(steps *faulttest.Steps) (dir, at string, err error) {
		dir = t.TempDir()
		put(t, filepath.Join(dir, "db"), "old")
		put(t, filepath.Join(dir, "vault"), "new")
		at, err = durable.PutAside(faulttest.FS{Steps: steps}, filepath.Join(dir, "db"), filepath.Join(dir, "aside"), "vault")
		return dir, at, err
	}
	if _, _, err := run(counted); err != nil || counted.N() != 5 {
		t.Fatal(counted.Names(), err)
	}
	for at := 1; at <= counted.N(); at++ {
		for _, fault := range []faulttest.Fault{faulttest.FailBefore, faulttest.FailAfter, faulttest.FailOnwards} {
			dir, where, err := run(&faulttest.Steps{At: at, Fault: fault})
			found := files(t, dir)
			var old []string
			for name, content := range found {
				if info, e := os.Lstat(filepath.Join(dir, name)); e == nil && info.Mode().IsRegular() && content == "old" {
					old = append(old, filepath.Join(dir, name))
				}
			}
			if err == nil || len(old) != 1 || old[0] != where || found["db"] == "" || found["vault"] != "new" {
				t.Errorf("%s, %s: at %s, %v; %v", counted.Names()[at-1], fault, where, err, found)
			}
			if fault != faulttest.FailOnwards && where != filepath.Join(dir, "db") {
				t.Errorf("%s, %s: it is not undone: %v", counted.Names()[at-1], fault, found)
			}
		}
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
