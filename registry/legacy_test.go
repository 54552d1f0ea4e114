package registry

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

const (
	legacyTable10 = `CREATE TABLE IF NOT EXISTS beehives (
		node_name TEXT PRIMARY KEY,
		ssh_host TEXT NOT NULL,
		ssh_port INTEGER NOT NULL DEFAULT 22,
		ssh_user TEXT NOT NULL,
		ssh_key_path TEXT,
		git_repo_url TEXT NOT NULL,
		git_branch TEXT NOT NULL,
		install_path TEXT NOT NULL,
		last_connected_unix INTEGER,
		status TEXT NOT NULL DEFAULT 'unknown');`
	legacyTable12 = legacyTable10 + `
		ALTER TABLE beehives ADD COLUMN backends TEXT;
		ALTER TABLE beehives ADD COLUMN devices TEXT;`
	// legacyLoose takes anything, null too.
	legacyLoose = `CREATE TABLE beehives (node_name, ssh_host, ssh_port, ssh_user, ssh_key_path, git_repo_url, git_branch,
		install_path, last_connected_unix TIMESTAMP, status, backends, devices BOOLEAN);`
)

// sqlite3 makes a plain database with the stock tool.
func sqlite3(t *testing.T, script string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "old registry?#%.db")
	cmd := exec.CommandContext(t.Context(), "sqlite3", "-bail", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	return path
}

func wantLegacy(t *testing.T, path string, want ImportSet) {
	t.Helper()
	want.TwelveFields = true
	got, err := ReadLegacy(t.Context(), path, "/home/ops")
	check(t, err)
	if got.content == nil {
		t.Error("the rows are not hashed")
	}
	got.content = nil
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(ImportSet{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadLegacyTenColumns(t *testing.T) {
	path := sqlite3(t, legacyTable10+`
		INSERT INTO beehives VALUES ('hive-01', 'hive-01.example.org', 2222, 'ops', '~/.ssh/id_ed25519',
			'https://git.example.org/fleet/hive.git', 'main', '~/hive', 1767323045, 'reachable');
		INSERT INTO beehives VALUES ('hive-02', 'hive-02.example.org', 22, 'ops', NULL,
			'https://git.example.org/fleet/hive.git', 'main', '/opt/hive', NULL, 'unknown');`)
	before, err := os.ReadFile(path)
	check(t, err)
	first := testNode()
	first.Backends, first.Devices = nil, nil
	wantLegacy(t, path, ImportSet{Nodes: []Node{first, bareNode("hive-02")}})
	after, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file was changed")
	}

	// Without a home, a path with ~ is not valid.
	got, err := ReadLegacy(t.Context(), path, "")
	check(t, err)
	want := ImportSet{TwelveFields: true, Nodes: []Node{bareNode("hive-02")}, Skipped: []Problem{{"hive-01", "ssh_key_path must be absolute"}}}
	got.content = nil
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(ImportSet{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	r := newRegistry(t)
	wantReport(t, r, got, ImportOptions{}, ImportReport{Added: []string{"hive-02"}, Skipped: want.Skipped})
}

func TestReadLegacyTwelveColumns(t *testing.T) {
	path := sqlite3(t, legacyTable12+`
		INSERT INTO beehives VALUES ('hive-01', 'hive-01.example.org', 2222, 'ops', '/home/ops/.ssh/id_ed25519',
			'https://git.example.org/fleet/hive.git', 'main', '~/hive', 1767323045, 'online', '["cuda", "cpu"]', '{"cuda": 2, "cpu": 1}');
		INSERT INTO beehives VALUES ('hive-02', 'hive-02.example.org', 22, 'ops', '',
			'https://git.example.org/fleet/hive.git', 'main', '/opt/hive', NULL, '', '', NULL);`)
	wantLegacy(t, path, ImportSet{Nodes: []Node{testNode(), bareNode("hive-02")}})
}

func TestReadLegacyOddRows(t *testing.T) {
	row := func(values string) string { return "INSERT INTO beehives VALUES (" + values + ");\n" }
	const url = `'https://git.example.org/fleet/hive.git', 'main'`
	path := sqlite3(t, legacyLoose+
		row(`NULL, 'a', 22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h2', 'a', -22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h3', 'a', 'many', 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h4', 'a', 65536, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h5', 'a', 22.5, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h6', '-oProxyCommand=x', 22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h7', 'a', 22, NULL, NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h8', 'a', 22, 'ops', NULL, 'https://ops:secret@git.example.org/a', 'main', '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h9', 1.5, 22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h10', x'ff', 22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`char(27) || '[2J', 'a', 22, 'ops', NULL, `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		row(`'h12', 'a', 22, 'ops', 'id_rsa', `+url+`, '/opt', NULL, 'unknown', NULL, NULL`)+
		// From here: valid nodes with unusual values.
		row(`42, x'68697665', '2222', 'ops', NULL, `+url+`, '/opt', '1767323045', 'offline', x'5b5d', '{}'`)+
		row(`'h14', 'a', NULL, 'ops', NULL, `+url+`, '/opt', 'yesterday', 'sleeping', 'cpu', '{"cpu":-1}'`)+
		row(`'h15', 'a', 22.0, 'ops', NULL, `+url+`, '/opt', -5, NULL, '["CPU"]', 7`)+
		row(`'h16', 'a', 22, 'ops', NULL, `+url+`, '/opt', 1.767323045e9, 3.5, '["cpu",null]', '{"cpu":1,"cpu":2}'`))
	node := func(name string) Node {
		n := bareNode(name)
		n.SSHHost, n.InstallPath = "a", "/opt"
		return n
	}
	h13, h16 := node("42"), node("h16")
	h13.SSHHost, h13.SSHPort, h13.Status, h13.Backends, h13.Devices = "hive", 2222, StatusOffline, []string{}, map[string]uint32{}
	h13.LastConnected = time.Unix(1767323045, 0).UTC()
	h16.LastConnected = h13.LastConnected
	wantLegacy(t, path, ImportSet{
		Nodes: []Node{h13, node("h14"), node("h15"), h16},
		Skipped: []Problem{
			{"rowid 1", "node_name must not be null"},
			{"h2", "ssh_port must be 1 to 65535"},
			{"h3", "ssh_port must be 1 to 65535"},
			{"h4", "ssh_port must be 1 to 65535"},
			{"h5", "ssh_port must be 1 to 65535"},
			{"h6", "ssh_host must not start with '-'"},
			{"h7", "ssh_user must not be null"},
			{"h8", "git_repo_url " + ruleURLSecret},
			{"h9", "ssh_host must be text"},
			{"h10", "ssh_host must be text"},
			{"rowid 11", "node_name must not contain control characters"},
			{"h12", "ssh_key_path must be absolute"},
		},
		Warnings: []Problem{
			{"h14", "ssh_port was null and is now 22"},
			{"h14", "last_connected_unix cannot be read and is now unknown"},
			{"h14", `status "sleeping" is now unknown`},
			{"h14", "backends cannot be read and are now unknown"},
			{"h14", "devices cannot be read and are now unknown"},
			{"h15", "last_connected_unix cannot be read and is now unknown"},
			{"h15", "backends cannot be read and are now unknown"},
			{"h15", "devices cannot be read and are now unknown"},
			{"h16", `status "" is now unknown`},
			{"h16", "backends cannot be read and are now unknown"},
			{"h16", "devices cannot be read and are now unknown"},
		},
	})
}

// TestReadLegacyLog leaves a row in the write-ahead log, as a killed program does.
func TestReadLegacyLog(t *testing.T) {
	path := sqlite3(t, `PRAGMA journal_mode = WAL;
		PRAGMA wal_autocheckpoint = 0;
.dbconfig no_ckpt_on_close on
`+legacyTable10+`
		INSERT INTO beehives VALUES ('hive-02', 'hive-02.example.org', 22, 'ops', NULL,
			'https://git.example.org/fleet/hive.git', 'main', '/opt/hive', NULL, 'unknown');`)
	info, err := os.Stat(path + "-wal")
	if err != nil || info.Size() == 0 {
		t.Fatalf("no write-ahead log was left behind: %v", err)
	}
	wantLegacy(t, path, ImportSet{Nodes: []Node{bareNode("hive-02")}})
}

func TestReadLegacyRefuses(t *testing.T) {
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "file.db")
		check(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	for name, tt := range map[string]struct {
		path string
		want error
	}{
		"no table":   {sqlite3(t, `CREATE TABLE other (node_name);`), ErrNotRegistry},
		"view":       {sqlite3(t, `CREATE VIEW beehives AS SELECT 1 AS node_name;`), ErrNotRegistry},
		"no column":  {sqlite3(t, strings.Replace(legacyTable12, "git_branch TEXT NOT NULL,", "", 1)), ErrNotRegistry},
		"no file":    {filepath.Join(t.TempDir(), "none.db"), fs.ErrNotExist},
		"not SQLite": {write(strings.Repeat("x", 4096)), vault.ErrNotPlaintext},
		"empty":      {write(""), vault.ErrNotPlaintext},
		"vault":      {vaulttest.Config(t).Path, vault.ErrNotPlaintext},
		"open vault": {newRegistry(t).Vault().Path(), vault.ErrAlreadyOpen},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := ReadLegacy(t.Context(), tt.path, "/home/ops")
			wantErr(t, err, tt.want)
			if !cmp.Equal(set, ImportSet{}, cmp.AllowUnexported(ImportSet{})) {
				t.Error("a set beside an error")
			}
		})
	}
}

func FuzzLegacyRow(f *testing.F) {
	const valid = "hive-01\x1fhive-01.example.org\x1f22\x1fops\x1f~/.ssh/id\x1fhttps://git.example.org/a\x1fmain\x1f/opt\x1f1767323045\x1freachable\x1f" +
		`["cuda","cpu"]` + "\x1f" + `{"cuda":2}`
	f.Add(valid, "tttttttttttt", int64(22), 22.0, "/home/ops")
	f.Add(valid, "ttittttitttt", int64(22), 22.0, "/home/ops")
	f.Add(valid, "bbbbbbbbbbbb", int64(-1), 1e300, "")
	f.Add(valid, "ttnntttnnnnn", int64(65536), -0.5, "/")
	f.Add(valid, "nfifnfifnfif", int64(1)<<62, 1e18, "relative")
	f.Fuzz(func(t *testing.T, texts, kinds string, number int64, float float64, home string) {
		row := legacyRow{rowid: 1}
		split := strings.SplitN(texts, "\x1f", columnCount)
		for i := range row.values {
			text := ""
			if i < len(split) {
				text = split[i]
			}
			kind := byte('t')
			if i < len(kinds) {
				kind = kinds[i]
			}
			switch kind {
			case 't':
				row.values[i] = text
			case 'b':
				row.values[i] = []byte(text)
			case 'i':
				row.values[i] = number
			case 'f':
				row.values[i] = float
			}
		}
		n, warnings, err := row.decode(home)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			if !cmp.Equal(n, Node{Name: n.Name}) || warnings != nil {
				t.Fatal("a value beside an error")
			}
			return
		}
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, n.normalized()); diff != "" {
			t.Fatalf("not normalized:\n%s", diff)
		}
		if len(n.Backends) > 0 && row.values[colBackends] == nil || len(n.Devices) > 0 && row.values[colDevices] == nil {
			t.Fatal("capabilities out of nothing")
		}
		for _, w := range warnings {
			if ruleCharacters(w) != "" {
				t.Fatalf("a warning that is not safe to show: %q", w)
			}
		}
	})
}
