package durable_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
)

// files returns the content of every file in a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(data)
	}
	return found
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWritesUnderFaults makes each call of each function that writes a file fail. After that
// the file is the old one or the new one. If an error says that nothing happened before the
// file had its name, no part of it is left.
func TestWritesUnderFaults(t *testing.T) {
	const before, after = "old content", "new content"
	source := filepath.Join(t.TempDir(), "source")
	put(t, source, after)
	ways := []struct {
		name   string
		exists bool // the file exists before
		write  func(fsys durable.FS, path string) error
		steps  string
	}{
		{"replace", true, func(fsys durable.FS, path string) error { return durable.Replace(fsys, path, []byte(after)) },
			"create F, write F, fsync F, close F, rename F, sync directory"},
		{"replace nothing", false, func(fsys durable.FS, path string) error { return durable.Replace(fsys, path, []byte(after)) },
			"create F, write F, fsync F, close F, rename F, sync directory"},
		{"create", false, func(fsys durable.FS, path string) error { return durable.Create(fsys, path, []byte(after)) },
			"create F, write F, fsync F, close F, link F, remove F, sync directory"},
		{"copy", false, func(fsys durable.FS, path string) error { return durable.Copy(fsys, source, path) },
			"create F, write F, fsync F, close F, link F, remove F, sync directory"},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			run := func(steps *faulttest.Steps) (string, error) {
				dir := t.TempDir()
				path := filepath.Join(dir, "F")
				if way.exists {
					put(t, path, before)
				}
				return dir, way.write(recorder{faulttest.FS{Steps: steps}, t}, path)
			}
			counted := &faulttest.Steps{}
			dir, err := run(counted)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{"F": after}, files(t, dir)); diff != "" {
				t.Error(diff)
			}
			if n := strings.Count(way.steps, ",") + 1; counted.N() != n {
				t.Errorf("%d steps, want %d", counted.N(), n)
			}
			var names []string
			for at := 1; at <= counted.N(); at++ {
				for _, b := range []faulttest.Fault{faulttest.FailBefore, faulttest.FailAfter, faulttest.FailOnwards} {
					steps := &faulttest.Steps{At: at, Fault: b}
					dir, err := run(steps)
					if b == faulttest.FailBefore {
						names = append(names, steps.FaultStep())
					}
					if !errors.Is(err, faulttest.ErrFault) {
						t.Errorf("%s, %s: %v, want the fault", steps.FaultStep(), b, err)
					}
					found := files(t, dir)
					switch content, ok := found["F"]; {
					case ok && content == after && strings.Contains("rename F, link F, remove F, sync directory", steps.FaultStep()):
					case way.exists && content == before, !way.exists && !ok:
					default:
						t.Errorf("%s, %s: content %q", steps.FaultStep(), b, content)
					}
					delete(found, "F")
					for name := range found {
						// Unless the part cannot be removed either, or the part is the file.
						if !durable.IsPart(name) || b != faulttest.FailOnwards {
							t.Errorf("%s, %s: %s is left", steps.FaultStep(), b, name)
						}
					}
				}
			}
			if got := strings.Join(names, ", "); got != way.steps {
				t.Errorf("order of calls:\n got %s\nwant %s", got, way.steps)
			}
		})
	}
}

// recorder checks that a part is created with its final mode, and that the final name does not
// exist before the part is flushed and closed.
type recorder struct {
	faulttest.FS
	t *testing.T
}

func (r recorder) CreateNew(path string) (durable.File, error) {
	f, err := r.FS.CreateNew(path)
	if err == nil {
		if info, e := os.Stat(path); e != nil || info.Mode() != 0o600 {
			r.t.Errorf("a part of mode %v, %v", info, e)
		}
		if !durable.IsPart(path) {
			r.t.Errorf("%s is no part", path)
		}
	}
	return f, err
}

func TestCreateNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "F")
	put(t, path, "there")
	calls := 0
	for name, create := range map[string]func() error{
		"Create": func() error { return durable.Create(durable.OS{}, path, []byte("new")) },
		"CreateFrom": func() error {
			return durable.CreateFrom(durable.OS{}, path, func(w io.Writer) error { calls++; return nil })
		},
		"Copy": func() error { return durable.Copy(durable.OS{}, path, path) },
	} {
		if err := create(); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, want fs.ErrExist", name, err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(durable.OS{}, filepath.Join(dir, "link"), nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a dangling link: %v, want fs.ErrExist", err)
	}
	os.Remove(filepath.Join(dir, "link"))
	if diff := cmp.Diff(map[string]string{"F": "there"}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestCreateFromThatFails(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	err := durable.CreateFrom(durable.OS{}, filepath.Join(dir, "F"), func(w io.Writer) error {
		io.Copy(w, bytes.NewReader(make([]byte, 100_000)))
		return broken
	})
	if !errors.Is(err, broken) || len(files(t, dir)) != 0 {
		t.Errorf("%v, left %v", err, files(t, dir))
	}
	if err := durable.Copy(durable.OS{}, filepath.Join(dir, "absent"), filepath.Join(dir, "F")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
}

func TestIsPart(t *testing.T) {
	for name, want := range map[string]bool{
		"beehives.db.slots.part-0123456789abcdef": true,
		"/a/b.part-0123456789abcdef":              true,
		".part-0123456789abcdef":                  false, // of no file
		"b.part-0123456789abcde":                  false,
		"b.part-":                                 false,
		"b.part-0123456789abcdeX":                 false,
		"b.part-0123456789ABCDEF":                 false,
		"b.part-0123456789abcdef.slots":           false,
		"beehives.db":                             false,
	} {
		if got := durable.IsPart(name); got != want {
			t.Errorf("IsPart(%q) = %t", name, got)
		}
	}
}

func TestRemoveParts(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"F", "F.part-0123456789abcdef", "F.part-fedcba9876543210", "G.part-0123456789abcdef", "F.part-mine"} {
		put(t, filepath.Join(dir, name), "")
	}
	if err := durable.RemoveParts(durable.OS{}, filepath.Join(dir, "F")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"F": "", "G.part-0123456789abcdef": "", "F.part-mine": ""}, files(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestExists(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "F"), "")
	os.Symlink("nowhere", filepath.Join(dir, "link"))
	for name, want := range map[string]bool{"F": true, "link": true, "absent": false, "absent/F": false} {
		if got, err := durable.Exists(filepath.Join(dir, name)); got != want || err != nil {
			t.Errorf("Exists(%q) = %t, %v", name, got, err)
		}
	}
	// A file that cannot be examined is not absent.
	if got, err := durable.Exists(filepath.Join(dir, "F", "G")); err == nil {
		t.Errorf("Exists below a file = %t, %v, want an error", got, err)
	}
	for _, name := range []string{"absent", "F", "F"} {
		if err := durable.RemoveIfExists(durable.OS{}, filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if ok, _ := durable.Exists(filepath.Join(dir, "F")); ok {
		t.Error("F is still there")
	}
}
