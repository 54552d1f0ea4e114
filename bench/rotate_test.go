package bench

import (
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// BenchmarkRotate gives a vault of 10,000 nodes and 1,000 sealed keys a new key:
// every row is copied, every key sealed anew, every page verified. The reference
// writes the same rows into a new plaintext database, in one transaction.
func BenchmarkRotate(b *testing.B) {
	nodes := fleet(10_000)
	o := newOurs(b, nodes)
	err := o.Vault().Update(b.Context(), func(tx *vault.Tx) error {
		for i := range 1_000 {
			fingerprint := fmt.Sprintf("SHA256:%043d", i)
			sealed, err := tx.Seal(b.Context(), vault.SealedSSHKey, fingerprint, make([]byte, 400))
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(b.Context(), `INSERT INTO ssh_keys (fingerprint, type, public_key, comment, private_key, created) VALUES (?, 'ssh-ed25519', '', '', ?, 0)`, fingerprint, sealed); err != nil {
				return err
			}
		}
		return tx.Audit(b.Context(), vault.Event{Action: registry.ActionAddSSHKey})
	})
	if err != nil {
		b.Fatal(err)
	}
	ours := repeat(b, func(int) error {
		_, err := o.Vault().Rotate(b.Context())
		return err
	})
	b.ReportAllocs()
	compareBy(b, 1, ours, startReference(b, nodes).side(b, "write"))
}
