package vault_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// hashRow computes a row's hash from the documented format only.
func hashRow(prev []byte, seq, at int64, actor, via, action string, subject, detail *string, digest string) []byte {
	message := append([]byte{0x01}, prev...)
	add := func(s *string) {
		if s == nil {
			message = append(message, 0, 0, 0, 0, 0)
			return
		}
		message = binary.BigEndian.AppendUint32(append(message, 1), uint32(len(*s)))
		message = append(message, *s...)
	}
	for _, s := range []string{strconv.FormatInt(seq, 10), strconv.FormatInt(at, 10), actor, via, action} {
		add(&s)
	}
	add(subject)
	add(detail)
	add(&digest)
	sum := sha256.Sum256(message)
	return sum[:]
}

// auditedVault returns a vault whose log has a few rows, one of them without subject and
// detail.
func auditedVault(t *testing.T) *vault.Vault {
	t.Helper()
	cfg := vaulttest.Config(t)
	cfg.Now = func() time.Time { return time.UnixMilli(1767323045123) }
	v := vaulttest.Open(t, cfg)
	for _, e := range []vault.Event{
		{Action: vault.Action("node.add"), Subject: "hive-01", Detail: "ssh_host=a"},
		{Action: vault.Action("node.check")},
		{Action: vault.Action("node.remove"), Subject: "hive-01"},
		{Action: vault.Action("node.note"), Detail: "hive-01"},
	} {
		if err := v.Update(t.Context(), func(tx *vault.Tx) error { return tx.Audit(t.Context(), e) }); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func verifyAudit(t *testing.T, v *vault.Vault) (head vault.AuditHead, err error) {
	t.Helper()
	err = v.View(t.Context(), func(tx *vault.Tx) (err error) {
		head, err = tx.VerifyAudit(t.Context())
		return err
	})
	return head, err
}

// TestAuditHash recomputes the chain from the columns.
func TestAuditHash(t *testing.T) {
	v := auditedVault(t)
	prev := make([]byte, 32)
	n := int64(0)
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		rows, err := tx.QueryContext(t.Context(), `SELECT seq, at, actor, via, action, subject, detail, digest, prev_hash, hash FROM audit_log ORDER BY seq`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var seq, at int64
			var actor, via, action, digest string
			var subject, detail *string
			var prevHash, hash []byte
			if err := rows.Scan(&seq, &at, &actor, &via, &action, &subject, &detail, &digest, &prevHash, &hash); err != nil {
				return err
			}
			want := hashRow(prev, seq, at, actor, via, action, subject, detail, digest)
			if string(prevHash) != string(prev) || string(hash) != string(want) {
				t.Errorf("row %d: hash %x behind %x, want %x behind %x", seq, hash, prevHash, want, prev)
			}
			if n++; seq != n {
				t.Errorf("row %d stands at %d", seq, n)
			}
			prev = hash
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
	head, err := verifyAudit(t, v)
	if err != nil || head.Seq != n || string(head.Hash[:]) != string(prev) {
		t.Errorf("head %d %x, %v", head.Seq, head.Hash, err)
	}
}

// TestAuditHashGolden: the bytes must never change.
func TestAuditHashGolden(t *testing.T) {
	subject := "hive-01"
	const want = "3c05fce9a5dfc42c0bb6b03d9379f24aa376f5f7adf278bb124bc77673597d7b"
	digest := "0:" + strings.Repeat("0", 64) + ":0:" + strings.Repeat("0", 64)
	hash := hashRow(make([]byte, 32), 1, 1767323045123, "ops(1000)@desk", "test", "node.add", &subject, nil, digest)
	if fmt.Sprintf("%x", hash) != want {
		t.Errorf("%x, want %s", hash, want)
	}
	row := vault.AuditRow{Seq: 1, At: time.UnixMilli(1767323045123).UTC(), Actor: "ops(1000)@desk", Via: "test", Action: "node.add", Subject: subject, Digest: digest, Hash: [32]byte(hash)}
	if _, err := (vault.AuditHead{}).Follow(row); err != nil {
		t.Error(err)
	}
	line := `{"seq":1,"at":"2026-01-02T03:04:05.123Z","actor":"ops(1000)@desk","via":"test","action":"node.add","subject":"hive-01","detail":null,` +
		`"digest":"` + digest + `","prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","hash":"` + want + `"}`
	got, err := wire.Marshal(row)
	if err != nil || string(got) != line {
		t.Errorf("%s, %v\nwant %s", got, err, line)
	}
	var again vault.AuditRow
	if err := again.UnmarshalJSON([]byte(line)); err != nil || again != row {
		t.Errorf("%+v, %v", again, err)
	}
	for _, bad := range []string{
		strings.Replace(line, `"detail":null`, `"detail":""`, 1),
		strings.Replace(line, `"hash":"`, `"hash":"0`, 1),
		strings.Replace(line, `"seq":1`, `"seq":1,"more":2`, 1),
		strings.Replace(line, digest, digest[1:], 1),
		strings.Replace(line, ".123Z", "Z", 1),
		line + "{}",
	} {
		if err := again.UnmarshalJSON([]byte(bad)); !errors.Is(err, vault.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", bad, err)
		}
	}
}

// TestAuditTampering changes the log by SQL, as an attacker with the key could.
func TestAuditTampering(t *testing.T) {
	v := auditedVault(t)
	ctx := t.Context()
	if _, err := verifyAudit(t, v); err != nil {
		t.Fatal(err)
	}
	var tampered []string
	for seq := 1; seq <= 5; seq++ {
		for _, change := range []string{
			`seq = seq + 100`, `at = at + 1`, `actor = actor || 'x'`, `via = ''`, `action = 'node.xyz'`,
			`subject = ifnull(subject, '') || 'x'`, `detail = ifnull(detail, '') || 'x'`, `digest = '1' || digest`,
			`prev_hash = zeroblob(31) || x'01'`, `hash = zeroblob(32)`, `hash = x''`, `prev_hash = x''`,
		} {
			tampered = append(tampered, fmt.Sprintf(`UPDATE audit_log SET %s WHERE seq = %d`, change, seq))
		}
		if seq < 5 { // without its last row a log is still valid; only its head shows the loss
			tampered = append(tampered,
				fmt.Sprintf(`DELETE FROM audit_log WHERE seq = %d`, seq),
				// Two rows change places, with their hashes.
				fmt.Sprintf(`UPDATE audit_log SET seq = CASE seq WHEN %d THEN -1 ELSE -2 END WHERE seq IN (%[1]d, %d); UPDATE audit_log SET seq = CASE seq WHEN -1 THEN %[2]d ELSE %[1]d END WHERE seq < 0`, seq, seq+1),
				fmt.Sprintf(`UPDATE audit_log SET action = (SELECT action FROM audit_log WHERE seq = %d) WHERE seq = %d`, seq+1, seq),
			)
		}
	}
	// Text is moved from one column to the next.
	tampered = append(tampered,
		`UPDATE audit_log SET subject = NULL, detail = subject WHERE subject IS NOT NULL AND detail IS NULL`,
		`UPDATE audit_log SET subject = '' WHERE subject IS NULL`,
		`UPDATE audit_log SET actor = actor || via, via = ''`,
		`INSERT INTO audit_log SELECT seq + 1, at, actor, via, action, subject, detail, digest, hash, hash FROM audit_log WHERE seq = 5`,
		`INSERT INTO audit_log SELECT 0, at, actor, via, action, subject, detail, digest, zeroblob(32), hash FROM audit_log WHERE seq = 1`,
	)
	undo := errors.New("undo")
	for _, sql := range tampered {
		err := v.Update(ctx, func(tx *vault.Tx) error {
			for statement := range strings.SplitSeq(sql, ";") {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			if _, err := tx.VerifyAudit(ctx); !errors.Is(err, vault.ErrAudit) {
				t.Errorf("%s: %v, want ErrAudit", sql, err)
			}
			return undo
		})
		if !errors.Is(err, undo) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := verifyAudit(t, v); err != nil {
		t.Errorf("after all was undone: %v", err)
	}
}

// TestAppendAuditPart: each row of a restored log must continue the log.
func TestAppendAuditPart(t *testing.T) {
	from, to := auditedVault(t), vaulttest.New(t)
	ctx := t.Context()
	var rows []vault.AuditRow
	err := from.View(ctx, func(tx *vault.Tx) error {
		for r, err := range tx.AuditRows(ctx, 1) {
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = to.Update(ctx, func(tx *vault.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM audit_log`); err != nil {
			return err
		}
		if err := appendRows(ctx, tx, rows[1]); !errors.Is(err, vault.ErrAudit) {
			t.Errorf("the second row first: %v, want ErrAudit", err)
		}
		if err := appendRows(ctx, tx, rows[0], rows[2]); !errors.Is(err, vault.ErrAudit) {
			t.Errorf("a row is missing: %v, want ErrAudit", err)
		}
		changed := rows[0]
		changed.Detail += "."
		if err := appendRows(ctx, tx, changed); !errors.Is(err, vault.ErrAudit) {
			t.Errorf("a row was changed: %v, want ErrAudit", err)
		}
		if err := errors.Join(appendRows(ctx, tx, rows[:2]...), appendRows(ctx, tx), appendRows(ctx, tx, rows[2:]...)); err != nil {
			return err
		}
		if err := appendRows(ctx, tx, rows[len(rows)-1]); !errors.Is(err, vault.ErrAudit) {
			t.Errorf("a row twice: %v, want ErrAudit", err)
		}
		// The row's digest belongs to this vault.
		return tx.Audit(ctx, vault.Event{Action: vault.Action("goes.on")})
	})
	if err != nil {
		t.Fatal(err)
	}
	if head, err := verifyAudit(t, to); err != nil || head.Seq != 6 {
		t.Errorf("head %d, %v", head.Seq, err)
	}
}

func TestAuditActor(t *testing.T) {
	cfg := vaulttest.Config(t)
	cfg.Actor, cfg.Via = "", ""
	v := vaulttest.Open(t, cfg)
	long := strings.Repeat("é", 300)
	for _, ctx := range []context.Context{
		t.Context(),
		vault.WithActor(t.Context(), vault.Actor{Name: "ops\nroot\x1b[2J\u0085", Via: "queen-rbee 0.3.0"}),
		vault.WithActor(t.Context(), vault.Actor{Name: long + "\xff"}),
	} {
		if err := v.Update(ctx, func(tx *vault.Tx) error { return tx.Audit(ctx, vault.Event{Action: vault.Action("x")}) }); err != nil {
			t.Fatal(err)
		}
	}
	var actors []string
	err := v.View(t.Context(), func(tx *vault.Tx) error {
		for r, err := range tx.AuditRows(t.Context(), 2) {
			if err != nil {
				return err
			}
			actors = append(actors, r.Actor)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(actors[0], "(") || !strings.Contains(actors[0], ")@") {
		t.Errorf("the user's own name: %q", actors[0])
	}
	if diff := cmp.Diff([]string{"ops root?[2J?", strings.Repeat("é", 123) + "… (cut)"}, actors[1:]); diff != "" {
		t.Error(diff)
	}
}

func appendRows(ctx context.Context, tx *vault.Tx, rows ...vault.AuditRow) error {
	part, err := vault.NewAuditPart(rows)
	if err != nil {
		return err
	}
	return tx.AppendAuditPart(ctx, part)
}
