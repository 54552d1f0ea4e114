package sqlcipher

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestCheckPages: each of the checks finds what only it can find, in a database that was just
// built and in a finished one.
func TestCheckPages(t *testing.T) {
	const tables = `
		CREATE TABLE parent (name TEXT PRIMARY KEY CHECK (name != ''));
		CREATE TABLE child (parent TEXT NOT NULL REFERENCES parent (name) DEFERRABLE INITIALLY DEFERRED);
		INSERT INTO parent VALUES ('a');
		INSERT INTO child VALUES ('a');`
	for name, c := range map[string]struct {
		then   string // after the tables were made
		damage func(t *testing.T, path string)
		want   string // "": the database is fine
	}{
		"fine": {},
		"HMAC of an unused page": {
			then:   `CREATE TABLE gone (x); INSERT INTO gone VALUES (zeroblob(100000)); DROP TABLE gone;`,
			damage: func(t *testing.T, path string) { flipByte(t, path, 5000) },
			want:   "HMAC verification failed",
		},
		"constraint": {
			then: `PRAGMA ignore_check_constraints = ON; INSERT INTO parent VALUES (''); PRAGMA ignore_check_constraints = OFF;`,
			want: "CHECK constraint failed in parent",
		},
		"reference to nothing": {
			then: `PRAGMA foreign_keys = OFF; INSERT INTO child VALUES ('b'); PRAGMA foreign_keys = ON;`,
			want: "row 2 of child refers to nothing in parent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/a.db"
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			fresh, err := Open(Options{Path: path, Key: testKey(), Salt: testSalt, Build: true})
			if err != nil {
				t.Fatal(err)
			}
			pool, err := fresh.Writer()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pool.ExecContext(t.Context(), tables+c.then); err != nil {
				t.Fatal(err)
			}
			if c.damage != nil {
				c.damage(t, path)
			}
			checkFound(t, "built", fresh.CheckPages(t.Context()), c.want)
			if err := fresh.Close(); err != nil {
				t.Fatal(err)
			}
			checkFound(t, "finished", open(t, path, testKey()).CheckPages(t.Context()), c.want)
		})
	}
}

func checkFound(t *testing.T, which string, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Errorf("%s: %v", which, err)
	}
	if want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v, want ErrDamaged: %s", which, err, want)
	}
}

// flipByte changes a byte at a distance from the end of a file.
func flipByte(t *testing.T, path string, fromEnd int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-fromEnd] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
