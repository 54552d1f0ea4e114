package registry

import (
	"fmt"
	"time"
)

// nodeFields are the names of a node's fields, in the table and in JSON, in the
// order of both.
var nodeFields = [12]string{
	"node_name",
	"ssh_host",
	"ssh_port",
	"ssh_user",
	"ssh_key_path",
	"git_repo_url",
	"git_branch",
	"install_path",
	"last_connected_unix",
	"status",
	"backends",
	"devices",
}

// nodeRow is room for one row of the table, used again for each.
type nodeRow struct {
	values [12]any
	ptrs   [12]any
}

func newNodeRow() *nodeRow {
	row := new(nodeRow)
	for i := range row.values {
		row.ptrs[i] = &row.values[i]
	}
	return row
}

// node turns the row into a valid node. Its errors are ErrBadRow and name the
// row.
func (row *nodeRow) node() (Node, error) {
	n, err := decodeNode(&row.values)
	if err == nil {
		err = n.validate()
	}
	if err != nil {
		// Not ErrInvalid: whoever reads did nothing wrong.
		return Node{}, fmt.Errorf("%w %.80q: %v", ErrBadRow, n.Name, err)
	}
	return n, nil
}

// decodeNode is strict about types and leaves the rest to validate. After an
// error the node has at least the name, if the row has one.
func decodeNode(values *[12]any) (Node, error) {
	var n Node
	for _, column := range [...]struct {
		i        int
		dst      *string
		nullable bool
	}{
		{0, &n.Name, false},
		{1, &n.SSHHost, false},
		{3, &n.SSHUser, false},
		{4, &n.SSHKeyPath, true},
		{5, &n.GitRepoURL, false},
		{6, &n.GitBranch, false},
		{7, &n.InstallPath, false},
		{9, (*string)(&n.Status), false},
	} {
		text, ok := values[column.i].(string)
		if !ok && !(column.nullable && values[column.i] == nil) {
			return n, &FieldError{Field: nodeFields[column.i], Rule: "must be text"}
		}
		*column.dst = text
	}
	port, ok := values[2].(int64)
	if !ok || port < 1 || port > 65535 {
		return n, &FieldError{Field: "ssh_port", Rule: rulePort}
	}
	n.SSHPort = uint16(port)
	if values[8] != nil {
		seconds, ok := values[8].(int64)
		if !ok || !validUnix(seconds) {
			return n, &FieldError{Field: "last_connected_unix", Rule: ruleUnix}
		}
		n.LastConnected = time.Unix(seconds, 0).UTC()
	}
	if n.Status == "" {
		return n, &FieldError{Field: "status", Rule: ruleStatus}
	}
	var err error
	if values[10] != nil {
		text, ok := values[10].(string)
		if n.Backends, err = parseBackends(text); !ok || err != nil {
			return n, &FieldError{Field: "backends", Rule: "must be a JSON array of strings"}
		}
	}
	if values[11] != nil {
		text, ok := values[11].(string)
		if n.Devices, err = parseDevices(text); !ok || err != nil {
			return n, &FieldError{Field: "devices", Rule: "must be a JSON object of counts"}
		}
	}
	return n, nil
}
