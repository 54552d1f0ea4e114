package registry

import (
	"strconv"
	"strings"
)

// fieldChange is one field's values as the audit log shows them.
type fieldChange struct {
	field    string
	old, new string
}

const null = "null"

// auditedFields are the values of a normalized node that the audit log tells
// of: not the name, which is its subject, and not what changes by itself.
func auditedFields(n Node) [9]fieldChange {
	keyPath, backends, devices := null, null, null
	if n.SSHKeyPath != "" {
		keyPath = strconv.Quote(n.SSHKeyPath)
	}
	if n.Backends != nil {
		backends = formatBackends(n.Backends)
	}
	if n.Devices != nil {
		devices = formatDevices(n.Devices)
	}
	return [9]fieldChange{
		{field: "ssh_host", new: strconv.Quote(n.SSHHost)},
		{field: "ssh_port", new: strconv.Itoa(int(n.SSHPort))},
		{field: "ssh_user", new: strconv.Quote(n.SSHUser)},
		{field: "ssh_key_path", new: keyPath},
		{field: "git_repo_url", new: strconv.Quote(n.GitRepoURL)},
		{field: "git_branch", new: strconv.Quote(n.GitBranch)},
		{field: "install_path", new: strconv.Quote(n.InstallPath)},
		{field: "backends", new: backends},
		{field: "devices", new: devices},
	}
}

// diffNodes lists the audited fields in which two normalized nodes differ.
func diffNodes(old, n Node) []fieldChange {
	before, after := auditedFields(old), auditedFields(n)
	var changes []fieldChange
	for i, c := range after {
		if c.old = before[i].new; c.old != c.new {
			changes = append(changes, c)
		}
	}
	return changes
}

// describe is the detail of an audit row: `ssh_port: 22 -> 2222; ...`.
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

// describeNode lists the audited fields that have a value.
func describeNode(n Node) string {
	var parts []string
	for _, c := range auditedFields(n) {
		if c.new != null {
			parts = append(parts, c.field+": "+c.new)
		}
	}
	return strings.Join(parts, "; ")
}
