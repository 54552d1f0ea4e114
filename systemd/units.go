// Package systemd holds the units for backups, which `rbee-vault backup install-timer` installs.
package systemd

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed rbee-vault-backup.service
var systemService string

//go:embed user/rbee-vault-backup.service
var userService string

//go:embed rbee-vault-backup.timer
var timer string

// Schedule says what is backed up, and when.
type Schedule struct {
	Program  string // absolute path
	Database string // absolute path
	Calendar string // as OnCalendar= takes it
	// Identity is the path of an identity file that opens the vault. "": the keyring, or the
	// credential.
	Identity string
	// Of a unit for the system's manager; otherwise empty.
	User       string
	Credential string // absolute path of the encrypted credential
}

// Units returns the service and the timer.
func (s Schedule) Units() (service, timed string) {
	service = userService
	if s.User != "" {
		service = set(systemService, "User=rbee-vault", "User="+s.User)
		service = set(service, "LoadCredentialEncrypted=rbee-vault:/etc/credstore.encrypted/rbee-vault", "LoadCredentialEncrypted=rbee-vault:"+s.Credential)
		service = set(service, "Environment=RBEE_VAULT_DB=/var/lib/rbee-vault/beehives.db", "Environment=RBEE_VAULT_DB="+s.Database)
	}
	service = set(service, "Environment=RBEE_VAULT_DB=%h/.rbee/beehives.db", "Environment=RBEE_VAULT_DB="+s.Database)
	service = set(service, "ExecStart=/usr/local/bin/rbee-vault ", "ExecStart="+s.Program+" ")
	if s.Identity != "" {
		service = set(service, "Environment=RBEE_VAULT_DB="+s.Database, fmt.Sprintf("Environment=RBEE_VAULT_DB=%s RBEE_VAULT_IDENTITY_FILE=%s", s.Database, s.Identity))
	}
	return service, set(timer, "OnCalendar=daily", "OnCalendar="+s.Calendar)
}

// set replaces a setting at the beginning of a line.
func set(unit, old, now string) string {
	return strings.Replace(unit, "\n"+old, "\n"+now, 1)
}
