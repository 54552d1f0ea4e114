package vault_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// scenario is what a run does at a site.
type scenario struct {
	keyring bool // the site has a keyring
	old     bool // before the run there is a vault with the node "old" and a sealed key,
	keyless bool // and the key of that vault is not in the keyring
	run     func(ctx context.Context, s crashSite, st *faulttest.Steps) error
	outcome string // as look prints it
	// methods are the unlock methods that must open the vault after a kill, whatever the kill
	// left. Each one is tried.
	methods []method
	// later makes, from config's, the configuration that opens the outcome.
	later func(vault.Config) vault.Config
	// only is the only unlock method to use. "": see usual.
	only method
	// leaves says that files and keyring items of the killed run may be left, even if there is
	// no rerun.
	leaves bool
}

func (sc scenario) configBy(s crashSite, w method, st *faulttest.Steps) vault.Config {
	cfg := s.configBy(w, st)
	if sc.later != nil {
		cfg = sc.later(cfg)
	}
	return cfg
}

func (sc scenario) config(s crashSite) vault.Config {
	w := sc.only
	if w == "" {
		w = s.usual()
	}
	return sc.configBy(s, w, &faulttest.Steps{})
}

var scenarios = map[string]scenario{
	"init":                    {keyring: true, run: create, outcome: "[] generation 1, 2 slots, keyring", methods: allMethods},
	"init without keyring":    {run: create, outcome: "[] generation 1, 2 slots", methods: []method{byRecovery, byRecipient}},
	"restore":                 {keyring: true, run: restoring(false), outcome: "[restored] generation 1, 1 slots, keyring", methods: []method{byKeyring, byRecipient}},
	"replace":                 {keyring: true, old: true, run: restoring(true), outcome: "[restored] generation 1, 1 slots, keyring", methods: []method{byKeyring, byRecipient}},
	"replace without keyring": {old: true, run: restoring(true), outcome: "[restored] generation 1, 1 slots", methods: []method{byRecipient}},
	"migrate":                 {keyring: true, old: true, run: migrate, outcome: "[old] generation 1, 2 slots, keyring", later: nextSchema, methods: allMethods},
	"rotate":                  {keyring: true, old: true, run: rotating(byKeyring), outcome: "[old] generation 2, 2 slots, keyring", methods: allMethods},
	"rotate by recovery":      {keyring: true, old: true, run: rotating(byRecovery), outcome: "[old] generation 2, 2 slots, keyring", methods: allMethods},
	"rotate without keyring":  {old: true, run: rotating(byRecipient), outcome: "[old] generation 2, 2 slots", methods: []method{byRecovery, byRecipient}},
	"slot add": {keyring: true, old: true, methods: allMethods, outcome: "[old] generation 1, 3 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		_, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecipient, Recipient: otherRecipient})
		return err
	})},
	"slot add recovery": {keyring: true, old: true, methods: allMethods, leaves: true, outcome: "[old] generation 1, 3 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		file := s.recovery() + ".second"
		leftBehind, _ := filepath.Glob(file + "*")
		for _, left := range leftBehind { // by a run that was killed: they open nothing
			os.Remove(left)
		}
		_, err := v.AddSlot(ctx, vault.NewSlot{Kind: vault.SlotRecovery, Files: []vault.IdentityFile{{Path: file}}})
		return err
	})},
	"slot remove": {keyring: true, old: true, methods: []method{byKeyring, byRecipient}, outcome: "[old] generation 1, 1 slots, keyring", run: slotting(byKeyring, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		return v.RemoveSlot(ctx, recoverySlot(ctx, v))
	})},
	"slot add keyring": {keyring: true, old: true, keyless: true, methods: []method{byRecovery, byRecipient}, outcome: "[old] generation 1, 2 slots, keyring", leaves: true, run: slotting(byRecovery, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		return v.AddKeyring(ctx)
	})},
	"slot remove keyring": {keyring: true, old: true, methods: []method{byRecovery, byRecipient}, outcome: "[old] generation 1, 2 slots", leaves: true, only: byRecovery, run: slotting(byRecovery, func(ctx context.Context, v *vault.Vault, s crashSite) error {
		_, err := v.RemoveKeyring(ctx)
		return err
	})},
}

// Nobody has the identity of otherRecipient.
const otherRecipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

func create(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	return createVault(ctx, s, st, false)
}

func createVault(ctx context.Context, s crashSite, st *faulttest.Steps, noKeyring bool) error {
	_, err := vault.Create(ctx, s.config(st), vault.CreateOptions{
		RecoveryFile: s.recovery(),
		Recipients:   []string{s.identity().Recipient().String()},
		NoKeyring:    noKeyring,
	})
	return err
}

func migrate(ctx context.Context, s crashSite, st *faulttest.Steps) error {
	return openAndClose(ctx, nextSchema(s.config(st)))
}

func openAndClose(ctx context.Context, cfg vault.Config) error {
	v, err := vault.Open(ctx, cfg)
	if err != nil {
		return err
	}
	return v.Close()
}

func rotating(w method) func(context.Context, crashSite, *faulttest.Steps) error {
	return slotting(w, func(ctx context.Context, v *vault.Vault, _ crashSite) error {
		_, err := v.Rotate(ctx)
		return err
	})
}

// slotting opens the vault and calls do with it.
func slotting(w method, do func(context.Context, *vault.Vault, crashSite) error) func(context.Context, crashSite, *faulttest.Steps) error {
	return func(ctx context.Context, s crashSite, st *faulttest.Steps) error {
		v, err := vault.Open(ctx, s.configBy(w, st))
		if err != nil {
			return err
		}
		err = do(ctx, v, s)
		if e := v.Close(); err == nil {
			err = e
		}
		return err
	}
}

func recoverySlot(ctx context.Context, v *vault.Vault) (id string) {
	v.View(ctx, func(tx *vault.Tx) error {
		slots, err := tx.Slots(ctx)
		if err == nil && slots[0].Kind == vault.SlotRecovery {
			id = slots[0].ID
		}
		return err
	})
	return id
}

func restoring(replace bool) func(context.Context, crashSite, *faulttest.Steps) error {
	return func(ctx context.Context, s crashSite, st *faulttest.Steps) error {
		_, err := vault.Restore(ctx, s.config(st), vault.RestoreOptions{
			Replace: replace,
			Fill: func(ctx context.Context, tx *vault.Tx) (vault.Backup, error) {
				slot := vault.Slot{ID: "0123456789abcdef", Kind: vault.SlotRecipient, Recipient: s.identity().Recipient().String(), Created: tx.Now()}
				if err := insertNode(ctx, tx, "restored"); err != nil {
					return vault.Backup{}, err
				}
				return vault.Backup{Slots: []vault.Slot{slot}, OriginVaultID: "origin"}, insertKey(ctx, tx, "restored")
			},
		})
		return err
	}
}

// addNode is insertNode, with an audit row.
func addNode(ctx context.Context, tx *vault.Tx, name string) error {
	if err := insertNode(ctx, tx, name); err != nil {
		return err
	}
	return tx.Audit(ctx, vault.Event{Action: vault.Action("node.add"), Subject: name})
}

func insertNode(ctx context.Context, tx *vault.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO beehives (node_name, ssh_host, ssh_user, git_repo_url, git_branch, install_path) VALUES (?, 'h', 'ops', 'https://example.org/r.git', 'main', '/opt')`, name)
	return err
}

// insertKey seals a text as a node's SSH key.
func insertKey(ctx context.Context, tx *vault.Tx, node string) error {
	fingerprint := "SHA256:" + node
	sealed, err := tx.Seal(ctx, vault.SealedSSHKey, fingerprint, []byte("private key of "+node))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO ssh_keys (fingerprint, type, public_key, comment, private_key, created) VALUES (?, 'ssh-ed25519', '', '', ?, 0)`, fingerprint, sealed); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO beehive_ssh_keys (node_name, fingerprint) VALUES (?, ?)`, node, fingerprint)
	return err
}

// checkKeys unseals every key that insertKey sealed, and returns their number.
func checkKeys(ctx context.Context, tx *vault.Tx) (n int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT k.fingerprint, k.private_key, n.node_name FROM ssh_keys AS k JOIN beehive_ssh_keys AS n USING (fingerprint)`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var fingerprint, node string
		var sealed []byte
		if err := rows.Scan(&fingerprint, &sealed, &node); err != nil {
			return n, err
		}
		private, err := tx.Unseal(ctx, vault.SealedSSHKey, fingerprint, sealed)
		if err != nil {
			return n, err
		}
		if string(private) != "private key of "+node {
			return n, fmt.Errorf("the key of %s unseals to another's", node)
		}
		n++
	}
	return n, rows.Err()
}

// prepare makes a site. For scenarios that replace or migrate a vault, the site has a vault
// with a row.
func (sc scenario) prepare(t *testing.T) crashSite {
	t.Helper()
	s := newCrashSite(t, sc.keyring)
	if !sc.old {
		return s
	}
	if err := createVault(t.Context(), s, &faulttest.Steps{}, sc.keyless); err != nil {
		t.Fatal(err)
	}
	v := vaulttest.Open(t, s.configBy(s.usual(), &faulttest.Steps{}))
	err := v.Update(t.Context(), func(tx *vault.Tx) error {
		if err := insertNode(t.Context(), tx, "old"); err != nil {
			return err
		}
		if err := insertKey(t.Context(), tx, "old"); err != nil {
			return err
		}
		return tx.Audit(t.Context(), vault.Event{Action: vault.Action("node.add"), Subject: "old"})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// clears reports whether nothing may be left after the vault was opened by its usual method.
// That is not so while a rerun has to continue what a kill left.
func (sc scenario) clears(got string) bool {
	return got == sc.outcome || !sc.leaves && got != noVault
}
