package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// flushShim replaces the flushes of the C library, which SQLite calls. Go's own flushes call
// the system directly. It logs which file is flushed, and it fails while a certain file says
// so.
const flushShim = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int flush(int fd, const char *name) {
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n > 0) {
		path[n++] = '\n';
		int out = open(getenv("RBEE_TEST_FLUSHES"), O_WRONLY | O_APPEND | O_CREAT, 0600);
		if (write(out, path, n) != n) abort();
		close(out);
	}
	if (access(getenv("RBEE_TEST_FLUSH_FAILS"), F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return flush(fd, "fsync"); }
int fdatasync(int fd) { return flush(fd, "fdatasync"); }
`

// flushSite is a vault whose flushes in a child are recorded.
type flushSite struct {
	cfg   vault.Config
	shim  string
	log   string
	fails string
}

func newFlushSite(t *testing.T) flushSite {
	t.Helper()
	dir := t.TempDir()
	s := flushSite{vaulttest.Config(t), filepath.Join(dir, "shim.so"), filepath.Join(dir, "flushes"), filepath.Join(dir, "fails")}
	source := filepath.Join(dir, "shim.c")
	write(t, source, []byte(flushShim))
	cc, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(strings.TrimSpace(string(cc)), "-shared", "-fPIC", "-o", s.shim, source, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// run runs a child that ends with SIGKILL, and returns its lines.
func (s flushSite) run(t *testing.T, name, what string) []string {
	t.Helper()
	cmd := child(name, childSpec(s.cfg, what, s.fails, s.log))
	cmd.Env = append(cmd.Env, "LD_PRELOAD="+s.shim, "RBEE_TEST_FLUSHES="+s.log, "RBEE_TEST_FLUSH_FAILS="+s.fails)
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v\n%s", err, out)
	}
	os.Remove(s.fails)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func flushChild(arg string) {
	v, more := childVault(arg)
	ctx := context.Background()
	add := func(name string) {
		before := flushes(more[2])
		err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, name) })
		switch {
		case errors.Is(err, vault.ErrUnknownOutcome):
			fmt.Println(name, "unknown")
		case err != nil:
			fmt.Println(name, err)
		case flushes(more[2]) == before:
			fmt.Println(name, "acknowledged before its log was flushed")
		default:
			fmt.Println(name, "acknowledged")
		}
	}
	add("hive-01")
	if err := os.WriteFile(more[1], nil, 0o600); err != nil {
		panic(err)
	}
	add("hive-02")
	if more[0] == "goes on" {
		os.Remove(more[1])
		add("hive-03")
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// flushes counts the flushes of a write-ahead log.
func flushes(log string) int {
	data, _ := os.ReadFile(log)
	return strings.Count(string(data), "-wal\n")
}

func nodes(t *testing.T, cfg vault.Config) string {
	t.Helper()
	v := vaulttest.Open(t, cfg)
	defer v.Close()
	var names []string
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		if _, err := tx.VerifyAudit(t.Context()); err != nil {
			return err
		}
		if err := tx.VerifyContent(t.Context()); err != nil {
			return err
		}
		rows, err := tx.QueryContext(t.Context(), `SELECT node_name FROM beehives ORDER BY node_name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		return rows.Err()
	})
	if err == nil {
		err = v.CheckPages(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	return strings.Join(names, " ")
}

// TestFlushThatFails: a commit whose flush fails must not be reported as undone, because after
// a kill it is there. The next commit overwrites it.
func TestFlushThatFails(t *testing.T) {
	s := newFlushSite(t)
	if got := strings.Join(s.run(t, "flush", "killed"), ", "); got != "hive-01 acknowledged, hive-02 unknown" {
		t.Errorf("reported: %s", got)
	}
	if got := nodes(t, s.cfg); got != "hive-01 hive-02" {
		t.Errorf("there is: %s", got) // so the outcome is unknown indeed
	}
	s = newFlushSite(t)
	if got := strings.Join(s.run(t, "flush", "goes on"), ", "); got != "hive-01 acknowledged, hive-02 unknown, hive-03 acknowledged" {
		t.Errorf("reported: %s", got)
	}
	if got := nodes(t, s.cfg); got != "hive-01 hive-03" {
		t.Errorf("there is: %s", got)
	}
}
