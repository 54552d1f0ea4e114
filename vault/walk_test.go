package vault_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// The walk is the random life of a vault: changes, slots, rotations, losses, older copies and
// kills. Before each opening, the files alone decide what must hold. If they leave one
// legitimate unlock method, the data opens by it. If they leave none, it does not open. An
// older copy never opens unless that is accepted.

// walkSite is a crashSite whose vault any of several identities may open.
type walkSite struct{ crashSite }

const walkers = 4 // identities

func (s walkSite) identityFile(n int) string {
	return filepath.Join(s.dir, fmt.Sprintf("identity-%d", n))
}

// configFor opens by the keyring (-1) or by one of the identities. The keyring is at hand in
// both cases.
func (s walkSite) configFor(method int, st *faulttest.Steps) vault.Config {
	cfg := s.configBy(byKeyring, st)
	if method >= 0 {
		cfg.Identities, cfg.ConfirmSigner = identitiesIn(s.identityFile(method)), vaulttest.AcceptSigner
	}
	return cfg
}

func (s walkSite) recipient(n int) string {
	data, err := os.ReadFile(s.identityFile(n))
	if err != nil {
		panic(err)
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(data)))
	if err != nil {
		panic(err)
	}
	return identity.Recipient().String()
}

// do opens the vault and does one operation with it.
func (s walkSite) do(ctx context.Context, method int, op string, arg int, st *faulttest.Steps) error {
	cfg := s.configFor(method, st)
	cfg.AcceptRollback = op == "accept"
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	switch op {
	case "open", "accept":
	case "change":
		err = v.Update(ctx, func(tx *vault.Tx) error {
			name := fmt.Sprintf("hive-%d", tx.Now().UnixNano())
			var n int
			if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM beehives`).Scan(&n); err != nil {
				return err
			}
			name += fmt.Sprintf("-%d", n)
			if err := insertNode(ctx, tx, name); err != nil {
				return err
			}
			if err := insertKey(ctx, tx, name); err != nil {
				return err
			}
			return tx.Audit(ctx, vault.Event{Action: vault.Action("node.add"), Subject: name})
		})
	case "rotate":
		_, err = v.Rotate(ctx)
	case "add slot":
		_, err = v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: s.recipient(arg)})
	case "remove slot":
		var slots []vault.Slot
		v.View(ctx, func(tx *vault.Tx) (err error) {
			slots, err = tx.Slots(ctx)
			return err
		})
		id := "0000000000000000"
		for _, slot := range slots {
			if slot.Recipient == s.recipient(arg) {
				id = slot.ID
			}
		}
		err = v.RemoveSlot(ctx, id)
	case "add keyring":
		err = v.AddKeyring(ctx)
	case "remove keyring":
		_, err = v.RemoveKeyring(ctx)
	default:
		panic(op)
	}
	if e := v.Close(); err == nil {
		err = e
	}
	return err
}

func walkChild(spec string) {
	f := strings.Split(spec, "|")
	method, _ := strconv.Atoi(f[1])
	arg, _ := strconv.Atoi(f[3])
	at, _ := strconv.Atoi(f[4])
	s := walkSite{crashSite{f[0]}}
	if err := s.do(context.Background(), method, f[2], arg, &faulttest.Steps{At: at, Fault: faulttest.KillAfter}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// evidence is what the files say before an opening.
type evidence struct {
	id      string // of the database
	item    bool   // the keyring has its key
	known   bool   // the slots file has its entry
	keyring bool   // and says that the keyring is an unlock method
	slots   []string
	seq     int64 // slots_seq of the entry
	anchor  []string
}

type walkEntry struct {
	VaultID    string `json:"vault_id"`
	KeyID      string `json:"key_id"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	Keyring    bool   `json:"keyring"`
	SlotsSeq   int64  `json:"slots_seq"`
	Slots      []struct {
		Recipient string `json:"recipient"`
	} `json:"slots"`
}

func (s walkSite) look() evidence {
	e := evidence{keyring: true}
	db, err := os.ReadFile(s.db())
	if err != nil || len(db) < 16 {
		return e
	}
	e.id = hex.EncodeToString(db[:16])
	k := faulttest.Keyring{Dir: s.keyring(), Steps: &faulttest.Steps{}}
	item, err := k.Get(context.Background(), e.id)
	e.item = err == nil && strings.HasPrefix(item, "rbk1:"+e.id)
	accounts, _ := k.Accounts()
	for _, account := range accounts {
		if strings.HasSuffix(account, "/anchor") {
			value, _ := k.Get(context.Background(), account)
			e.anchor = strings.Split(value, ":")
		}
	}
	var file struct{ Entries []walkEntry }
	data, _ := os.ReadFile(s.db() + ".slots")
	if json.Unmarshal(data, &file) != nil {
		return e
	}
	for _, entry := range file.Entries {
		if entry.KeyID == e.id {
			e.known, e.keyring, e.seq = true, entry.Keyring, entry.SlotsSeq
			for _, slot := range entry.Slots {
				e.slots = append(e.slots, slot.Recipient)
			}
		}
	}
	return e
}

// legitimate reports whether the files leave this unlock method.
func (s walkSite) legitimate(e evidence, method int) bool {
	if method < 0 {
		return e.item && e.keyring
	}
	return e.known && slices.Contains(e.slots, s.recipient(method))
}

func (s walkSite) copyTo(t *rapid.T, dir string) walkSite {
	os.RemoveAll(dir)
	if out, err := exec.Command("cp", "-a", s.dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return walkSite{crashSite{dir}}
}

// check opens a copy by one unlock method. older says that an older copy of the database may be
// in place.
func (s walkSite) check(t *rapid.T, scratch string, method int, older bool) {
	e := s.look()
	s = s.copyTo(t, scratch)
	ctx := context.Background()
	v, err := vault.Open(ctx, s.configFor(method, &faulttest.Steps{}))
	switch {
	case err != nil && s.legitimate(e, method) && !older:
		t.Fatalf("method %d is there, and does not open: %v\n%s", method, err, s.listing())
	case err != nil && older && s.legitimate(e, method) && !errors.Is(err, vault.ErrRollback):
		t.Fatalf("method %d, of an older copy: %v", method, err)
	case err == nil && !s.legitimate(e, method):
		t.Fatalf("method %d is not there, and opens\n%s", method, s.listing())
	}
	if err != nil {
		return
	}
	defer v.Close()
	err = v.View(ctx, func(tx *vault.Tx) error {
		m, err := tx.Meta(ctx)
		if err != nil {
			return err
		}
		head, err := tx.VerifyAudit(ctx)
		if err != nil {
			return err
		}
		if m.SlotsSeq < e.seq {
			t.Errorf("an older copy opened: slots_seq %d, the slots file had %d", m.SlotsSeq, e.seq)
		}
		if method < 0 && len(e.anchor) == 5 {
			seq, _ := strconv.ParseInt(e.anchor[3], 10, 64)
			generation, _ := strconv.ParseInt(e.anchor[2], 10, 64)
			if head.Seq < seq || m.Generation < generation {
				t.Errorf("an older copy opened: row %d of generation %d, the anchor was %q", head.Seq, m.Generation, e.anchor)
			}
		}
		// Rows, sealed keys and the log agree.
		var nodes, logged int
		if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM beehives), (SELECT count(*) FROM audit_log WHERE action = 'node.add')`).Scan(&nodes, &logged); err != nil {
			return err
		}
		keys, err := checkKeys(ctx, tx)
		if nodes != logged || keys != nodes {
			t.Errorf("%d nodes, %d keys, %d logged", nodes, keys, logged)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func TestWalk(t *testing.T) {
	base := t.TempDir()
	runs, done := 0, map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		runs++
		s := walkSite{crashSite{filepath.Join(base, fmt.Sprint("walk-", runs))}}
		scratch := filepath.Join(base, "scratch")
		defer os.RemoveAll(s.dir)
		for _, dir := range []string{"v", "out", "keyring"} {
			if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
				t.Fatalf("%v", err)
			}
		}
		for n := range walkers {
			identity, err := age.GenerateX25519Identity()
			if err == nil {
				err = os.WriteFile(s.identityFile(n), []byte(identity.String()), 0o600)
			}
			if err != nil {
				t.Fatalf("%v", err)
			}
		}
		ctx := context.Background()
		if _, err := vault.Create(ctx, s.configFor(-1, &faulttest.Steps{}), vault.CreateOptions{Recipients: []string{s.recipient(0)}}); err != nil {
			t.Fatalf("%v", err)
		}
		older := false    // an older copy is in place, and was not accepted
		accepted := false // an older copy was accepted: then an earlier slots file may be ahead
		var copies []map[string][]byte
		anyMethod := func() int { // a legitimate one, or any
			e := s.look()
			from := rapid.IntRange(-1, walkers-1).Draw(t, "method")
			for n := range walkers + 1 {
				if method := (from+1+n)%(walkers+1) - 1; s.legitimate(e, method) {
					return method
				}
			}
			return from
		}
		op := func(name string) func(*rapid.T) {
			return func(t *rapid.T) {
				method, arg := anyMethod(), rapid.IntRange(0, walkers-1).Draw(t, "arg")
				done[name]++
				if rapid.IntRange(0, 3).Draw(t, "kill") == 0 {
					done["kill"]++
					cmd := child("walk", strings.Join([]string{s.dir, strconv.Itoa(method), name, strconv.Itoa(arg), strconv.Itoa(rapid.IntRange(1, 30).Draw(t, "at"))}, "|"))
					cmd.Stderr = nil
					cmd.Run()
					return
				}
				legitimate := s.legitimate(s.look(), method)
				err := s.do(ctx, method, name, arg, &faulttest.Steps{})
				if name == "change" && legitimate && !older && err != nil {
					t.Fatalf("change by method %d: %v", method, err)
				}
				// An open by identity does not ask the keyring, which remembers.
				if name == "accept" && err == nil && (method < 0 || s.look().anchor == nil) {
					older, accepted = false, true
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"change":         op("change"),
			"rotate":         op("rotate"),
			"add slot":       op("add slot"),
			"remove slot":    op("remove slot"),
			"add keyring":    op("add keyring"),
			"remove keyring": op("remove keyring"),
			"accept":         op("accept"),
			"lose keyring": func(t *rapid.T) {
				if rapid.IntRange(0, 2).Draw(t, "really") == 0 {
					done["lose keyring"]++
					os.RemoveAll(s.keyring())
					os.Mkdir(s.keyring(), 0o700)
				}
			},
			"lose slots file": func(t *rapid.T) {
				if s.look().item { // else this vault would be lost
					done["lose slots file"]++
					os.Remove(s.db() + ".slots")
				}
			},
			"copy": func(t *rapid.T) {
				taken := map[string][]byte{}
				for _, suffix := range []string{"", ".slots"} {
					if data, err := os.ReadFile(s.db() + suffix); err == nil {
						taken[suffix] = data
					}
				}
				copies = append(copies, taken)
			},
			"put back": func(t *rapid.T) {
				if len(copies) == 0 {
					return
				}
				done["put back"]++
				old := copies[rapid.IntRange(0, len(copies)-1).Draw(t, "copy")]
				for _, suffix := range rapid.SampledFrom([][]string{{""}, {".slots"}, {"", ".slots"}}).Draw(t, "what") {
					if old[suffix] == nil {
						continue
					}
					if suffix == "" {
						for _, side := range []string{"-wal", "-shm"} { // a killed run's would be replayed into it
							os.Remove(s.db() + side)
						}
					}
					older = older || accepted || suffix == ""
					os.WriteFile(s.db()+suffix, old[suffix], 0o600)
				}
			},
			"": func(t *rapid.T) {
				s.check(t, scratch, rapid.IntRange(-1, walkers-1).Draw(t, "check"), older)
			},
		})
		for method := -1; method < walkers; method++ {
			s.check(t, scratch, method, older)
		}
	})
	t.Logf("%d walks: %v", runs, done)
}
