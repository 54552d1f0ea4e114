package digest

// Table is a table that the digest covers, except for some columns.
type Table struct {
	Name    string
	leftOut []string // columns with state, whose changes are not audited
}

// content are the tables of the configuration.
var content = []Table{
	{"beehives", []string{"status", "last_connected_unix"}},
	{"node_details", nil},
	{"node_labels", nil},
	{"ssh_keys", []string{"used"}},
	{"beehive_ssh_keys", nil},
	{"host_keys", []string{"first_seen", "last_seen"}},
	{"key_rotations", nil},
	{"signers", []string{"sheet"}},
	{"backup_targets", nil},
	{"settings", nil},
}

// ContentTables returns the tables of the configuration. The table of slots has its own digest.
// Not covered: audit_log, which its chain protects; backups, which describes files; and the
// columns of vault_meta that stay the same as long as the key does.
func ContentTables() []Table { return content }

// SlotsTable returns the table of slots.
func SlotsTable() Table { return Table{Name: "slots"} }
