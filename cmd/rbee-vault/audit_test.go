package main

import (
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestConcerns checks a row that only the library writes: no command signs.
func TestConcerns(t *testing.T) {
	used := vault.AuditRow{Action: string(registry.ActionUseSSHKey), Subject: "SHA256:x", Detail: "hive-01"}
	if !concerns(used, "hive-01") || concerns(used, "hive-02") {
		t.Error("the use of an SSH key does not concern its node, or concerns another")
	}
}
