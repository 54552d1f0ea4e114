package main

import (
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestConcerns checks rows that only the library writes: no command signs.
func TestConcerns(t *testing.T) {
	used := vault.AuditRow{Action: string(registry.ActionUseSSHKey), Subject: "SHA256:x", Detail: "hive-01"}
	if !concerns(used, "hive-01") || concerns(used, "hive-02") {
		t.Error("the use of an SSH key does not concern its node, or concerns another")
	}
	signed := registry.Signature{Nodes: []string{"hive-01", "hive-02"}, User: "hive-03"}
	row := vault.AuditRow{Action: string(registry.ActionSignSSHKey), Subject: "SHA256:x", Detail: signed.Detail()}
	if !concerns(row, "hive-01") || !concerns(row, "hive-02") || concerns(row, "hive-03") {
		t.Errorf("a login does not concern its nodes, or concerns others: %s", row.Detail)
	}
	row.Detail = registry.Signature{Namespace: "login to hive-01; user"}.Detail()
	if concerns(row, "hive-01") {
		t.Error("a signature of data concerns a node")
	}
}

// TestRestoredBy: only the row that a restore from that vault writes makes a parting honest.
func TestRestoredBy(t *testing.T) {
	row := vault.AuditRow{Action: string(vault.ActionRestore), Subject: "new", Detail: "from vault old, backup 1 of 2026-01-02T15:04:05.000Z"}
	if !restoredBy(row, "old") {
		t.Error("the row of a restore is not taken for one")
	}
	for name, change := range map[string]func(r *vault.AuditRow){
		"another vault":     func(r *vault.AuditRow) { r.Detail = "from vault older, backup 1" },
		"the same vault":    func(r *vault.AuditRow) { r.Subject = "old" },
		"another action":    func(r *vault.AuditRow) { r.Action = "vault.restore-refused" },
		"a longer vault id": func(r *vault.AuditRow) { r.Detail = "from vault older, from vault old, " },
	} {
		forged := row
		change(&forged)
		if restoredBy(forged, "old") {
			t.Errorf("%s: %+v is taken for a restore from the vault", name, forged)
		}
	}
}
