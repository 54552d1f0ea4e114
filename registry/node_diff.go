package registry

import (
	"strconv"
	"strings"
)

// auditedField is a field as the audit log shows it.
type auditedField struct {
	name  string
	value string
}

// fieldChange is a change of a field as the audit log shows it.
type fieldChange struct {
	field    string
	old, new string
}

const null = "null"

// auditedFields are the fields of a normalized node that the audit log shows. The
// name is the subject of the audit row. Status and last contact are not audited.
func auditedFields(n Node) [12]auditedField {
	keyPath, backends, devices, jump, note, labels := null, null, null, null, null, null
	if n.SSHKeyPath != "" {
		keyPath = strconv.Quote(n.SSHKeyPath)
	}
	if n.Backends != nil {
		backends = formatBackends(n.Backends)
	}
	if n.Devices != nil {
		devices = formatDevices(n.Devices)
	}
	if n.ProxyJump != "" {
		jump = strconv.Quote(n.ProxyJump)
	}
	if n.Note != "" {
		note = strconv.Quote(n.Note)
	}
	if len(n.Labels) > 0 {
		labels = strconv.Quote(FormatLabels(n.Labels))
	}
	return [12]auditedField{
		{"ssh_host", strconv.Quote(n.SSHHost)},
		{"ssh_port", strconv.Itoa(int(n.SSHPort))},
		{"ssh_user", strconv.Quote(n.SSHUser)},
		{"ssh_key_path", keyPath},
		{"git_repo_url", strconv.Quote(n.GitRepoURL)},
		{"git_branch", strconv.Quote(n.GitBranch)},
		{"install_path", strconv.Quote(n.InstallPath)},
		{"backends", backends},
		{"devices", devices},
		{"proxy_jump", jump},
		{"note", note},
		{"labels", labels},
	}
}

// diffNodes lists the audited fields in which two normalized nodes differ.
func diffNodes(old, n Node) []fieldChange {
	before, after := auditedFields(old), auditedFields(n)
	var changes []fieldChange
	for i := range after {
		if before[i].value != after[i].value {
			changes = append(changes, fieldChange{after[i].name, before[i].value, after[i].value})
		}
	}
	return changes
}

// describe returns the detail of an audit row: `ssh_port: 22 -> 2222; ...`.
func describe(changes ...fieldChange) string {
	var b strings.Builder
	for i, c := range changes {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(c.field + ": " + c.old + " -> " + c.new)
	}
	return b.String()
}

// describeNode returns the audited fields that have a value, as the detail of an
// audit row.
func describeNode(n Node) string {
	var parts []string
	for _, f := range auditedFields(n) {
		if f.value != null {
			parts = append(parts, f.name+": "+f.value)
		}
	}
	return strings.Join(parts, "; ")
}
