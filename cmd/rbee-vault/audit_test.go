package main

import (
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// TestConcerns: the commands never sign, so no script shows this row of a library's.
func TestConcerns(t *testing.T) {
	used := vault.AuditRow{Action: registry.ActionUseSSHKey, Subject: "SHA256:x", Detail: "hive-01"}
	if !concerns(used, "hive-01") || concerns(used, "hive-02") {
		t.Error("the use of a node's key is not told of that node alone")
	}
}
