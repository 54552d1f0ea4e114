package main

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

// node has the vault's twelve fields under the same names.
type node struct {
	Name          string            `json:"node_name"`
	SSHHost       string            `json:"ssh_host"`
	SSHPort       uint16            `json:"ssh_port"`
	SSHUser       string            `json:"ssh_user"`
	SSHKeyPath    *string           `json:"ssh_key_path"`
	GitRepoURL    string            `json:"git_repo_url"`
	GitBranch     string            `json:"git_branch"`
	InstallPath   string            `json:"install_path"`
	LastConnected *int64            `json:"last_connected_unix"`
	Status        string            `json:"status"`
	Backends      []string          `json:"backends"`
	Devices       map[string]uint32 `json:"devices"`
}

const schema = `
CREATE TABLE audit_log (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    via TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT,
    detail TEXT,
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
);
CREATE TABLE beehives (
    node_name TEXT PRIMARY KEY,
    ssh_host TEXT NOT NULL,
    ssh_port INTEGER NOT NULL DEFAULT 22,
    ssh_user TEXT NOT NULL,
    ssh_key_path TEXT,
    git_repo_url TEXT NOT NULL,
    git_branch TEXT NOT NULL,
    install_path TEXT NOT NULL,
    last_connected_unix INTEGER,
    status TEXT NOT NULL DEFAULT 'unknown',
    backends TEXT,
    devices TEXT
)`

const columns = `
	node_name,
	ssh_host,
	ssh_port,
	ssh_user,
	ssh_key_path,
	git_repo_url,
	git_branch,
	install_path,
	last_connected_unix,
	status,
	backends,
	devices`

const (
	selectNode  = `SELECT` + columns + ` FROM beehives WHERE node_name = ?`
	selectNodes = `SELECT` + columns + ` FROM beehives ORDER BY node_name`
	insertNode  = `INSERT INTO beehives (` + columns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (node_name) DO NOTHING`
	updateStatus    = `UPDATE beehives SET status = ? WHERE node_name = ?`
	selectAuditHead = `SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1`
	insertAudit     = `INSERT INTO audit_log (seq, at, actor, via, action, subject, detail, prev_hash, hash)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

// store is the registry.
type store struct {
	path     string
	db       *sql.DB
	prepared *sql.Stmt
	nodes    []node // as it was made
	added    int
	rounds   int // of status changes
}

// connections of the pool: eight readers and a writer.
const connections = 9

// openDB opens the database with the settings of the vault: a write-ahead log,
// every commit flushed, foreign keys, the readers' page cache.
func openDB(path string) (*sql.DB, error) {
	options := url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_busy_timeout": {"5000"},
		"_txlock":       {"immediate"},
		"_cache_size":   {"-16384"},
	}
	db, err := sql.Open("sqlite3", path+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func create(path string, nodes []node) (*store, error) {
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec(schema); err != nil {
		return nil, err
	}
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	for _, n := range nodes {
		if err := insert(tx, n); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, err
	}
	prepared, err := db.Prepare(selectNode)
	if err != nil {
		return nil, err
	}
	return &store{path: path, db: db, prepared: prepared, nodes: nodes}, nil
}

// write makes another database of the same nodes, and of keys.
func (s *store) write(int) (err error) {
	path := s.path + ".written"
	db, err := openDB(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := db.Close(); err == nil {
			err = e
		}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(path + suffix)
		}
	}()
	if _, err := db.Exec(schema + `; CREATE TABLE ssh_keys (fingerprint TEXT PRIMARY KEY, private_key BLOB NOT NULL)`); err != nil {
		return err
	}
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, n := range s.nodes {
		if err := insert(tx, n); err != nil {
			return err
		}
	}
	key := make([]byte, 400)
	for i := range 1000 {
		if _, err := tx.Exec(`INSERT INTO ssh_keys VALUES (?, ?)`, fmt.Sprintf("SHA256:%043d", i), key); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *store) close() error { return s.db.Close() }

func (s *store) name(i int) string { return s.nodes[i%len(s.nodes)].Name }

func (s *store) get(i int) error {
	_, err := scan(s.db.QueryRow(selectNode, s.name(i)))
	return err
}

func (s *store) getPrepared(i int) error {
	_, err := scan(s.prepared.QueryRow(s.name(i)))
	return err
}

func (s *store) list(int) error {
	rows, err := s.db.Query(selectNodes)
	if err != nil {
		return err
	}
	defer rows.Close()
	var list []node
	for rows.Next() {
		n, err := scan(rows)
		if err != nil {
			return err
		}
		list = append(list, n)
	}
	if len(list) < len(s.nodes) {
		return fmt.Errorf("%d nodes of %d", len(list), len(s.nodes))
	}
	return rows.Err()
}

func (s *store) newNode() node {
	n := s.nodes[s.added%len(s.nodes)]
	n.Name = fmt.Sprintf("new-%08d", s.added)
	s.added++
	return n
}

func (s *store) add(int) error { return insert(s.db, s.newNode()) }

// addAudited executes the statements of the vault's AddNode.
func (s *store) addAudited(int) error {
	n := s.newNode()
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := scan(tx.QueryRow(selectNode, n.Name)); !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("node %q is there already (%v)", n.Name, err)
	}
	if err := insert(tx, n); err != nil {
		return err
	}
	var seq int64
	hash := make([]byte, sha256.Size)
	if err := tx.QueryRow(selectAuditHead).Scan(&seq, &hash); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	detail := fmt.Sprintf("ssh_host: %q; ssh_port: %d; ssh_user: %q; git_repo_url: %q; git_branch: %q; install_path: %q; backends: %q",
		n.SSHHost, n.SSHPort, n.SSHUser, n.GitRepoURL, n.GitBranch, n.InstallPath, n.Backends)
	next := sha256.Sum256(append(hash, detail...))
	_, err = tx.Exec(insertAudit, seq+1, time.Now().UnixMilli(), "ops(1000)@desk", "test", "node.add", n.Name, detail, hash, next[:])
	if err != nil {
		return err
	}
	return tx.Commit()
}

func (s *store) status(i int) error {
	if i%len(s.nodes) == 0 {
		s.rounds++
	}
	_, err := s.db.Exec(updateStatus, []string{"online", "offline"}[s.rounds%2], s.name(i))
	return err
}

// open opens the database as its only user, so that the log is made and removed.
func (s *store) open(i int) error {
	if err := s.db.Close(); err != nil {
		return err
	}
	db, err := openDB(s.path)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = scan(db.QueryRow(selectNode, s.name(i)))
	return err
}

// mixed reads with eight readers beside a writer. Of a hundred reads one is of
// all nodes.
func (s *store) mixed(n, rate int) (took time.Duration, written int, err error) {
	const readers = 8
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, readers+1)
	done := make(chan struct{})
	start := time.Now()
	for range readers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				read := s.get
				if i%100 == 0 {
					read = s.list
				}
				if err := read(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			if rate > 0 {
				time.Sleep(time.Until(start.Add(time.Duration(i+1) * time.Second / time.Duration(rate))))
			}
			select {
			case <-done:
				return
			default:
			}
			if err := s.status(i); err != nil {
				errs <- err
				return
			}
			written++
		}
	})
	wg.Wait()
	took = time.Since(start)
	close(done)
	writer.Wait()
	select {
	case err = <-errs:
	default:
	}
	return took, written, err
}

type scanner interface{ Scan(dest ...any) error }

func scan(row scanner) (node, error) {
	var n node
	var backends, devices sql.NullString
	err := row.Scan(
		&n.Name,
		&n.SSHHost,
		&n.SSHPort,
		&n.SSHUser,
		&n.SSHKeyPath,
		&n.GitRepoURL,
		&n.GitBranch,
		&n.InstallPath,
		&n.LastConnected,
		&n.Status,
		&backends,
		&devices,
	)
	if err == nil && backends.Valid {
		err = json.Unmarshal([]byte(backends.String), &n.Backends)
	}
	if err == nil && devices.Valid {
		err = json.Unmarshal([]byte(devices.String), &n.Devices)
	}
	return n, err
}

type execer interface {
	Exec(query string, args ...any) (sql.Result, error)
}

func insert(db execer, n node) error {
	var backends, devices *string
	if n.Backends != nil {
		backends = encode(n.Backends)
	}
	if n.Devices != nil {
		devices = encode(n.Devices)
	}
	_, err := db.Exec(insertNode,
		n.Name,
		n.SSHHost,
		n.SSHPort,
		n.SSHUser,
		n.SSHKeyPath,
		n.GitRepoURL,
		n.GitBranch,
		n.InstallPath,
		n.LastConnected,
		n.Status,
		backends,
		devices,
	)
	return err
}

func encode(v any) *string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	text := string(data)
	return &text
}
