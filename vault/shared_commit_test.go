package vault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// together calls the functions at once, each in an Update of its own, and returns their results
// in their order. The first one does not end before all others wait for the baton, which
// they get in that order too.
func together(ctx context.Context, v *vault.Vault, fns ...func(ctx context.Context, tx *vault.Tx) error) []error {
	results := make([]error, len(fns))
	begun, others := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					results[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			results[i] = v.Update(ctx, func(tx *vault.Tx) error {
				if i == 0 {
					close(begun)
					<-others
				}
				return fn(ctx, tx)
			})
		})
		if i == 0 {
			<-begun
		} else {
			v.AwaitCallers(i)
		}
	}
	close(others)
	wg.Wait()
	return results
}

// adding returns a function that adds a node and then returns err.
func adding(name string, err error) func(context.Context, *vault.Tx) error {
	return func(ctx context.Context, tx *vault.Tx) error { return errors.Join(addNode(ctx, tx, name), err) }
}

// TestSharedCommitKeepsApart: of callers that share a commit, one that fails, panics, leaves its
// change without an audit row, or leaves a jump to nowhere loses its own change only.
func TestSharedCommitKeepsApart(t *testing.T) {
	cfg := vaulttest.Config(t).WithShareTime(time.Minute)
	v := vaulttest.Open(t, cfg)
	refused := errors.New("refused")
	running := func(statement string) func(context.Context, *vault.Tx) error {
		return func(ctx context.Context, tx *vault.Tx) error {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
			return tx.Audit(ctx, vault.Event{Action: vault.Action("node.update")})
		}
	}
	jump := running(`INSERT INTO node_details (node_name, proxy_jump) VALUES ('0-gate', 'nowhere')`)
	jumpOn := running(`UPDATE node_details SET proxy_jump = 'nowhere' WHERE node_name = '0-node'`)
	remove := running(`DELETE FROM beehives WHERE node_name = '0-gate'`)
	unaudited := func(ctx context.Context, tx *vault.Tx) error { return insertNode(ctx, tx, "unaudited") }
	panics := func(ctx context.Context, tx *vault.Tx) error {
		if err := addNode(ctx, tx, "panics"); err != nil {
			return err
		}
		panic("in the middle")
	}
	bad := []func(context.Context, *vault.Tx) error{adding("refused", refused), panics, unaudited, jump, jumpOn, remove}
	for _, err := range together(t.Context(), v, adding("0-gate", nil), adding("0-node", nil),
		running(`INSERT INTO node_details (node_name, proxy_jump) VALUES ('0-node', '0-gate')`)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, first := range bad {
		fns := []func(context.Context, *vault.Tx) error{first, adding(fmt.Sprintf("a-%d", i), nil)}
		for _, fn := range bad {
			fns = append(fns, fn, adding(fmt.Sprintf("b-%d-%02d", i, len(fns)), nil))
		}
		for j, err := range together(t.Context(), v, append(fns, first)...) {
			if j%2 == 1 && err != nil || j%2 == 0 && err == nil {
				t.Errorf("caller %d: %v", j, err)
			}
		}
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	want := "0-gate 0-node"
	for i := range bad {
		want += fmt.Sprintf(" a-%d", i)
	}
	for i := range bad {
		for j := range bad {
			want += fmt.Sprintf(" b-%d-%02d", i, 2+2*j)
		}
	}
	if got := nodes(t, cfg); got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
}

// TestSharedCommitCancelled: a caller that is cancelled while it waits returns at once. One that
// is cancelled while its function runs loses its change. The others notice nothing.
func TestSharedCommitCancelled(t *testing.T) {
	cfg := vaulttest.Config(t).WithShareTime(time.Minute)
	v := vaulttest.Open(t, cfg)
	waiting, cancelWaiting := context.WithCancel(t.Context())
	running, cancelRunning := context.WithCancel(t.Context())
	joined, cancelJoined := context.WithCancel(t.Context())
	results := make(chan error, 2)
	others := together(t.Context(), v, func(ctx context.Context, tx *vault.Tx) error {
		for _, caller := range []struct {
			ctx context.Context
			fn  func(context.Context, *vault.Tx) error
		}{
			{waiting, adding("waiting", nil)},
			{running, func(ctx context.Context, tx *vault.Tx) error {
				cancelRunning()
				return addNode(context.WithoutCancel(ctx), tx, "running")
			}},
			{joined, adding("joined", nil)},
		} {
			go func() {
				results <- v.Update(caller.ctx, func(tx *vault.Tx) error { return caller.fn(caller.ctx, tx) })
			}()
		}
		v.AwaitCallers(3)
		cancelWaiting()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while it waits: %v", err)
		}
		return addNode(ctx, tx, "first")
	}, func(ctx context.Context, tx *vault.Tx) error {
		cancelJoined() // before or after it gets the baton
		return addNode(ctx, tx, "second")
	})
	if err := errors.Join(others...); err != nil {
		t.Error(err)
	}
	want := "first second"
	for range 2 {
		switch err := <-results; {
		case err == nil:
			want = "first joined second"
		case !errors.Is(err, context.Canceled):
			t.Error(err)
		}
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if got := nodes(t, cfg); got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
}

// TestSharedCommitCrowd: many write at once, some of them without success. What was
// acknowledged is there, what was not is not, and the audit log is whole.
func TestSharedCommitCrowd(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	refused := errors.New("refused")
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	write := func(name string, how int) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer func() { recover() }()
		if how == 1 {
			go cancel()
		}
		err := v.Update(ctx, func(tx *vault.Tx) error {
			err := addNode(ctx, tx, name)
			switch how {
			case 2:
				panic("in the middle")
			case 3:
				return errors.Join(err, refused)
			}
			return err
		})
		switch {
		case err == nil:
			mu.Lock()
			acknowledged[name] = true
			mu.Unlock()
		case !(how == 1 && errors.Is(err, context.Canceled)) && !(how == 3 && errors.Is(err, refused)):
			t.Errorf("%s: %v", name, err)
		}
	}
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 25 {
				write(fmt.Sprintf("hive-%02d-%02d", w, i), (w+i)%6)
			}
		})
	}
	wg.Wait()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	there := strings.Fields(nodes(t, cfg))
	for _, name := range there {
		if !acknowledged[name] {
			t.Errorf("%s is there, but was not acknowledged", name)
		}
	}
	if len(there) != len(acknowledged) || len(there) < 16*25/3 {
		t.Errorf("%d nodes, %d acknowledged", len(there), len(acknowledged))
	}
}

// TestSharedCommitFailing: callers that all fail, and of whom one always waits, do not keep
// others from writing.
func TestSharedCommitFailing(t *testing.T) {
	cfg := vaulttest.Config(t)
	v := vaulttest.Open(t, cfg)
	refused := errors.New("refused")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				v.Update(ctx, func(*vault.Tx) error {
					v.AwaitCaller(ctx)
					return refused
				})
			}
		})
	}
	v.AwaitCaller(ctx)
	if err := v.Changing(t.Context()); err != nil {
		t.Error(err)
	}
}

// shareChild has callers write at once, and prints how many flushes that took. With "fails",
// each of these flushes fails. With "late", a commit has no time for others to join.
func shareChild(arg string) {
	f := strings.Split(arg, "|")
	more, limit := f[2:], time.Minute
	if more[0] == "late" {
		limit = time.Nanosecond
	}
	v := sharingVault(f, limit)
	ctx := context.Background()
	if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "before") }); err != nil {
		panic(err)
	}
	fns := make([]func(context.Context, *vault.Tx) error, 2*vault.MaxShared)
	for i := range fns {
		fns[i] = adding(fmt.Sprintf("hive-%03d", i), nil)
	}
	before := flushes(more[2])
	if more[0] != "succeeds" {
		fns = fns[:16]
	}
	if more[0] == "fails" {
		if err := os.WriteFile(more[1], nil, 0o600); err != nil {
			panic(err)
		}
	}
	tally := map[string]int{}
	for _, err := range together(ctx, v, fns...) {
		switch {
		case err == nil:
			tally["acknowledged"]++
		case errors.Is(err, vault.ErrUnknownOutcome):
			tally["unknown"]++
		default:
			panic(err)
		}
	}
	fmt.Printf("%d acknowledged, %d unknown, %d flushes\n", tally["acknowledged"], tally["unknown"], flushes(more[2])-before)
	if more[0] == "fails" { // the next commit overwrites what failed
		os.Remove(more[1])
		if err := v.Update(ctx, func(tx *vault.Tx) error { return addNode(ctx, tx, "behind") }); err != nil {
			panic(err)
		}
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func sharingVault(f []string, limit time.Duration) *vault.Vault {
	identity, err := age.ParseX25519Identity(f[1])
	if err != nil {
		panic(err)
	}
	cfg := vault.Config{Path: f[0], Identities: []age.Identity{identity}, ConfirmSigner: vaulttest.AcceptSigner, Wait: time.Minute}
	v, err := vault.Open(context.Background(), cfg.WithShareTime(limit))
	if err != nil {
		panic(err)
	}
	return v
}

// TestSharedCommitFlushes: callers that wait for one another need one flush, up to a number and
// within a time, and are all on the disk when they return. If the flush fails, all of them get
// its error.
func TestSharedCommitFlushes(t *testing.T) {
	s := newFlushSite(t)
	want := fmt.Sprintf("%d acknowledged, 0 unknown, 2 flushes", 2*vault.MaxShared)
	if got := strings.Join(s.run(t, "share", "succeeds"), ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := len(strings.Fields(nodes(t, s.cfg))); got != 1+2*vault.MaxShared {
		t.Errorf("%d nodes after a kill", got)
	}
	s = newFlushSite(t)
	want = "16 acknowledged, 0 unknown, 16 flushes"
	if got := strings.Join(s.run(t, "share", "late"), ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s = newFlushSite(t)
	want = "0 acknowledged, 16 unknown, 1 flushes"
	if got := strings.Join(s.run(t, "share", "fails"), ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := nodes(t, s.cfg); got != "before behind" && got != "behind before" {
		t.Errorf("there is: %s", got)
	}
}

// crowdChild has 16 goroutines write rows of 2 KiB, and prints the name of each row after its
// commit.
func crowdChild(arg string) {
	v, more := childVault(arg)
	ctx := context.Background()
	padding := strings.Repeat("x", 2<<10)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 1000 {
				name := fmt.Sprintf("%s-%d-%d", more[0], w, i)
				err := v.Update(ctx, func(tx *vault.Tx) error {
					if err := addNode(ctx, tx, name); err != nil {
						return err
					}
					if i%7 == 0 {
						return errors.New("refused")
					}
					_, err := tx.ExecContext(ctx, `UPDATE beehives SET status = ? WHERE node_name = ?`, padding, name)
					return err
				})
				if err == nil {
					fmt.Println(name)
				} else if i%7 != 0 {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestKilledCrowd: a SIGKILL of a process in which many write at once loses no acknowledged row.
func TestKilledCrowd(t *testing.T) {
	cfg := vaulttest.Config(t)
	var all []string
	for round := range 8 {
		cmd := child("crowd", childSpec(cfg, "round-"+strconv.Itoa(round)))
		lines := start(t, cmd)
		for n := 1; lines.Scan(); n++ {
			all = append(all, lines.Text())
			if n == 20+37*round {
				cmd.Process.Kill()
			}
		}
		checkRows(t, cfg, all)
	}
	for _, name := range strings.Fields(nodes(t, cfg)) {
		if i, _ := strconv.Atoi(name[strings.LastIndex(name, "-")+1:]); i%7 == 0 {
			t.Errorf("%s is there, but was refused", name)
		}
	}
	t.Logf("%d rows acknowledged before kills", len(all))
}

// TestOneDeferredKey: functions that share a commit are checked for the one foreign key that
// SQLite checks at the commit only.
func TestOneDeferredKey(t *testing.T) {
	v := vaulttest.New(t)
	var schema string
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT group_concat(sql, ';') FROM sqlite_master`).Scan(&schema)
	})
	if n := strings.Count(strings.ToUpper(schema), "DEFERRABLE"); err != nil || n != 1 {
		t.Errorf("%d deferred foreign keys, %v", n, err)
	}
}
