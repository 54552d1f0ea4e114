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
