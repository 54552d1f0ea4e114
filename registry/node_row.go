package registry

import (
	"fmt"
	"time"
)

// The columns of a node's row, in the order of the table and of the JSON form.
const (
	colName = iota
	colSSHHost
	colSSHPort
	colSSHUser
	colSSHKeyPath
	colGitRepoURL
	colGitBranch
	colInstallPath
	colLastConnected
	colStatus
	colBackends
	colDevices
	columnCount
)

// nodeFields are the names of a node's fields, in the table and in JSON.
var nodeFields = [columnCount]string{
	colName:          "node_name",
	colSSHHost:       "ssh_host",
	colSSHPort:       "ssh_port",
	colSSHUser:       "ssh_user",
	colSSHKeyPath:    "ssh_key_path",
	colGitRepoURL:    "git_repo_url",
	colGitBranch:     "git_branch",
	colInstallPath:   "install_path",
	colLastConnected: "last_connected_unix",
	colStatus:        "status",
	colBackends:      "backends",
	colDevices:       "devices",
}

// nodeValues is a node's row as the driver returns it.
type nodeValues [columnCount]any

// nodeRow is the memory for one row. It is used for every row of a query.
type nodeRow struct {
	values nodeValues
	ptrs   [columnCount]any
}

func newNodeRow() *nodeRow {
	row := new(nodeRow)
	for i := range row.values {
		row.ptrs[i] = &row.values[i]
	}
	return row
}

// nodeDetails are the rows of a node in other tables, as the driver returns them.
type nodeDetails struct {
	proxyJump, note any
	labels          [][2]any // key and value
}

// node returns the row, with what other tables have of the node, as a valid node. Its
// errors are ErrBadRow and name the row.
func (row *nodeRow) node(details nodeDetails) (Node, error) {
	n, err := decodeNode(&row.values)
	if err == nil {
		err = decodeDetails(details, &n)
	}
	if err == nil {
		err = n.validate()
	}
	if err != nil {
		// Not ErrInvalid: the caller gave no invalid value.
		return Node{}, fmt.Errorf("%w %.80q: %v", ErrBadRow, n.Name, err)
	}
	return n, nil
}

// decodeNode is strict about types. It leaves all other rules to validate. After
// an error the node has its name, if the row has one.
func decodeNode(values *nodeValues) (n Node, err error) {
	if err := decodeTexts(values, &n); err != nil {
		return n, err
	}
	port, ok := values[colSSHPort].(int64)
	if !ok || port < 1 || port > 65535 {
		return n, &FieldError{Field: "ssh_port", Rule: rulePort}
	}
	n.SSHPort = uint16(port)
	if value := values[colLastConnected]; value != nil {
		seconds, ok := value.(int64)
		if !ok || !validUnix(seconds) {
			return n, &FieldError{Field: "last_connected_unix", Rule: ruleUnix}
		}
		n.LastConnected = time.Unix(seconds, 0).UTC()
	}
	if value := values[colBackends]; value != nil {
		text, ok := value.(string)
		if n.Backends, err = parseBackends(text); !ok || err != nil {
			return n, &FieldError{Field: "backends", Rule: "must be a JSON array of strings"}
		}
	}
	if value := values[colDevices]; value != nil {
		text, ok := value.(string)
		if n.Devices, err = parseDevices(text); !ok || err != nil {
			return n, &FieldError{Field: "devices", Rule: "must be a JSON object of counts"}
		}
	}
	return n, nil
}

// decodeTexts sets the fields of n that are text.
func decodeTexts(values *nodeValues, n *Node) error {
	for _, column := range [...]struct {
		i        int
		field    *string
		nullable bool
	}{
		{colName, &n.Name, false},
		{colSSHHost, &n.SSHHost, false},
		{colSSHUser, &n.SSHUser, false},
		{colSSHKeyPath, &n.SSHKeyPath, true},
		{colGitRepoURL, &n.GitRepoURL, false},
		{colGitBranch, &n.GitBranch, false},
		{colInstallPath, &n.InstallPath, false},
		{colStatus, (*string)(&n.Status), false},
	} {
		text, ok := values[column.i].(string)
		if !ok && !(column.nullable && values[column.i] == nil) {
			return &FieldError{Field: nodeFields[column.i], Rule: "must be text"}
		}
		*column.field = text
	}
	if n.Status == "" { // valid in a Node, but not in a row
		return &FieldError{Field: "status", Rule: ruleStatus}
	}
	return nil
}

// decodeDetails sets the fields of n that are not in its row.
func decodeDetails(d nodeDetails, n *Node) error {
	var ok bool
	if n.ProxyJump, ok = textOrNull(d.proxyJump); !ok {
		return &FieldError{Field: "proxy_jump", Rule: "must be text"}
	}
	if n.Note, ok = textOrNull(d.note); !ok {
		return &FieldError{Field: "note", Rule: "must be text"}
	}
	for _, label := range d.labels {
		key, ok1 := label[0].(string)
		value, ok2 := label[1].(string)
		if !ok1 || !ok2 {
			return &FieldError{Field: "labels", Rule: "must be text"}
		}
		if n.Labels == nil {
			n.Labels = make(map[string]string, len(d.labels))
		}
		n.Labels[key] = value
	}
	return nil
}

func textOrNull(value any) (text string, ok bool) {
	text, ok = value.(string)
	return text, ok || value == nil
}
