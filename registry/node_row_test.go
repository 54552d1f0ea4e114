package registry

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func rowOf(n Node) *nodeRow {
	row := newNodeRow()
	copy(row.values[:], appendNodeArgs(nil, n))
	return row
}

// detailsOf returns what other tables have of a node.
func detailsOf(n Node) nodeDetails {
	var d nodeDetails
	if n.ProxyJump != "" {
		d.proxyJump = n.ProxyJump
	}
	if n.Note != "" {
		d.note = n.Note
	}
	for key, value := range n.Labels {
		d.labels = append(d.labels, [2]any{key, value})
	}
	return d
}

func TestNodeRowRefuses(t *testing.T) {
	for name, change := range map[string]func(values *nodeValues){
		"null name":        func(v *nodeValues) { v[colName] = nil },
		"number for text":  func(v *nodeValues) { v[colSSHHost] = int64(7) },
		"blob for text":    func(v *nodeValues) { v[colSSHUser] = []byte("ops") },
		"text for port":    func(v *nodeValues) { v[colSSHPort] = "x" },
		"port -1":          func(v *nodeValues) { v[colSSHPort] = int64(-1) },
		"port 65536":       func(v *nodeValues) { v[colSSHPort] = int64(65536) },
		"null host":        func(v *nodeValues) { v[colSSHHost] = nil },
		"host as option":   func(v *nodeValues) { v[colSSHHost] = "-oProxyCommand=x" },
		"time as text":     func(v *nodeValues) { v[colLastConnected] = "now" },
		"negative time":    func(v *nodeValues) { v[colLastConnected] = int64(-1) },
		"null status":      func(v *nodeValues) { v[colStatus] = nil },
		"empty status":     func(v *nodeValues) { v[colStatus] = "" },
		"other status":     func(v *nodeValues) { v[colStatus] = "reachable" },
		"backends no JSON": func(v *nodeValues) { v[colBackends] = "cpu" },
		"backends number":  func(v *nodeValues) { v[colBackends] = int64(1) },
		"devices no JSON":  func(v *nodeValues) { v[colDevices] = "{" },
		"devices blob":     func(v *nodeValues) { v[colDevices] = []byte("{}") },
	} {
		t.Run(name, func(t *testing.T) {
			row := rowOf(testNode())
			change(&row.values)
			n, err := row.node(nodeDetails{})
			if !errors.Is(err, ErrBadRow) || errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
			if row.values[colName] != nil && !strings.Contains(err.Error(), "hive-01") {
				t.Errorf("the error does not name the row: %v", err)
			}
			if !cmp.Equal(n, Node{}) {
				t.Error("a value beside an error")
			}
		})
	}
}

func FuzzNodeFields(f *testing.F) {
	add := func(n Node, seconds int64) {
		f.Add(n.Name, n.SSHHost, n.SSHPort, n.SSHUser, n.SSHKeyPath, n.GitRepoURL, n.GitBranch, n.InstallPath, seconds, string(n.Status),
			strings.Join(n.Backends, ","), uint32(2), byte(3), n.ProxyJump, n.Note, FormatLabels(n.Labels))
	}
	add(testNode(), 1767323045)
	add(richNode(), 1767323045)
	add(bareNode("hive-02"), -1)
	n := testNode()
	n.SSHHost, n.GitRepoURL, n.GitBranch = "fe80::1%eth0", "git@[2001:db8::1]:a/b.git", "feature/\u00e4"
	add(n, 0)
	n.SSHHost, n.GitRepoURL = "192.0.2.7", "ssh://git@git.example.org:2222/~git/a%20b.git"
	add(n, maxUnix)
	f.Fuzz(func(t *testing.T, name, host string, port uint16, user, keyPath, gitURL, branch, install string, seconds int64, status, backends string,
		devices uint32, known byte, jump, note, labels string) {

		n := Node{
			Name:        name,
			SSHHost:     host,
			SSHPort:     port,
			SSHUser:     user,
			SSHKeyPath:  keyPath,
			GitRepoURL:  gitURL,
			GitBranch:   branch,
			InstallPath: install,
			Status:      Status(status),
			ProxyJump:   jump,
			Note:        note,
		}
		for _, label := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			key, value, _ := strings.Cut(label, "=")
			n.Labels[key] = value
		}
		if seconds >= 0 {
			n.LastConnected = time.Unix(seconds, 0)
		}
		if known&1 != 0 {
			n.Backends = strings.FieldsFunc(backends, func(r rune) bool { return r == ',' })
		}
		if known&2 != 0 {
			n.Devices = make(map[string]uint32)
			for i, name := range strings.Split(backends, ",") {
				n.Devices[name] = devices >> i
			}
		}
		if err := n.Validate(); err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, s := range append([]string{name, host, user, keyPath, gitURL, branch, install, jump, note, FormatLabels(n.Labels)}, n.Backends...) {
			if strings.HasPrefix(s, "-") || strings.ContainsFunc(s, unicode.IsControl) || s != strings.ToValidUTF8(s, "") {
				t.Fatalf("accepted %q", s)
			}
		}
		if strings.Contains(gitURL, "://") {
			u, err := url.Parse(gitURL)
			if err != nil {
				t.Fatalf("accepted %q: %v", gitURL, err)
			}
			if _, ok := u.User.Password(); ok || strings.Contains(u.User.Username(), ":") {
				t.Fatalf("accepted a password: %q", gitURL)
			}
		}
		got, err := rowOf(n.normalized()).node(detailsOf(n))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n.normalized(), got); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(got, got.normalized()); diff != "" {
			t.Fatalf("not normalized:\n%s", diff)
		}
	})
}
