package registry

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// testNode is a valid node with every field set.
func testNode() Node {
	return Node{
		Name:          "hive-01",
		SSHHost:       "hive-01.example.org",
		SSHPort:       2222,
		SSHUser:       "ops",
		SSHKeyPath:    "/home/ops/.ssh/id_ed25519",
		GitRepoURL:    "https://git.example.org/fleet/hive.git",
		GitBranch:     "main",
		InstallPath:   "~/hive",
		LastConnected: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Status:        StatusOnline,
		Backends:      []string{"cpu", "cuda"},
		Devices:       map[string]uint32{"cpu": 1, "cuda": 2},
	}
}

// bareNode is a valid node with unknown state.
func bareNode(name string) Node {
	return Node{
		Name:        name,
		SSHHost:     name + ".example.org",
		SSHPort:     22,
		SSHUser:     "ops",
		GitRepoURL:  "https://git.example.org/fleet/hive.git",
		GitBranch:   "main",
		InstallPath: "/opt/hive",
		Status:      StatusUnknown,
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat
	tests := []struct {
		field string
		set   func(n *Node, value string)
		good  []string
		bad   []string
	}{
		{
			field: "node_name",
			set:   func(n *Node, v string) { n.Name = v },
			good:  []string{"a", "hive-01", "Hive_01", "hive-01.home.example.org", "7", "a-", "a.", long("a", 64)},
			bad: []string{"", long("a", 65), "-a", ".a", "_a", "a b", "a/b", "a\n", "a\x00", "h\u00efve", "a\xff", "a;b", "$(a)",
				"a\u202eb", "a:b", "a@b"},
		},
		{
			field: "ssh_host",
			set:   func(n *Node, v string) { n.SSHHost = v },
			good: []string{"hive-01", "hive-01.example.org", "HIVE", "hive_01", "192.0.2.7", "2001:db8::1", "::1", "fe80::1%eth0",
				"::ffff:192.0.2.7", "xn--bcher-kva.example.org", "1and1.example.org", "7.example.org", long("a", 63),
				long("a.", 126) + "a"},
			bad: []string{"", "-oProxyCommand=x", "[::1]", "[2001:db8::1]", "192.0.2.256", "192.0.2", "1", "0177.0.0.01", "a..b", ".a", "a.",
				"a-.b", "-a.b", "a.-b", "a b", "a:22", "ops@a", "a/b", "a\n", "fe80::1%", "fe80::1%eth 0", "fe80::1%eth0/1",
				"fe80::1%averyverylonginterface", ":", "::g", long("a", 64), long("a.", 127) + "a", "b\u00fccher.example.org", "a\xff"},
		},
		{
			field: "ssh_user",
			set:   func(n *Node, v string) { n.SSHUser = v },
			good:  []string{"ops", "_ops", "ops-1", "o.ps", "ops@example.org", "ops+x", "7", long("a", 64)},
			bad:   []string{"", "-l", ".ops", "@a", "a b", "a;b", "a$", "a`b`", "a\\b", "a:b", "a/b", "a\t", "\u00f6ps", long("a", 65)},
		},
		{
			field: "ssh_key_path",
			set:   func(n *Node, v string) { n.SSHKeyPath = v },
			good:  []string{"", "/k", "/home/ops/.ssh/id ed25519", "/h\u00e4me/k", "/" + long("a", 1023)},
			bad:   []string{"k", "~/k", "~", "./k", "-i", "/k\n", "/k\x00", "/k\xff", "/k\ufffd", "/k\u2028", "/" + long("a", 1024)},
		},
		{
			field: "git_repo_url",
			set:   func(n *Node, v string) { n.GitRepoURL = v },
			good: []string{
				"https://git.example.org/a/b.git", "http://git.example.org/a", "https://git.example.org:8443/a",
				"ssh://git@git.example.org/a.git", "ssh://git@git.example.org:2222/~git/a.git", "ssh://[2001:db8::1]:22/a",
				"https://[2001:db8::1]/a", "git://git.example.org/a", "file:///srv/git/a.git", "https://ops@git.example.org/ops/_git/a",
				"git@git.example.org:a/b.git", "git.example.org:a", "git@[2001:db8::1]:a", "[2001:db8::1]:a", "git@192.0.2.7:/srv/a",
				"https://git.example.org/a%20b", "https://git.example.org/" + long("a", 1000), "https://git.example.org/a@b",
			},
			bad: []string{
				"", "-u", "git.example.org", "/srv/git/a", "./a", "../a", "a", "https://", "https://git.example.org", "https://git.example.org/",
				"https:///a", "https://a b/c", "https://git.example.org/a b", "https://git.example.org/a\n", "https://git.example.org:0/a",
				"https://git.example.org:65536/a", "https://git.example.org:/a", "https://git.example.org:x/a", "https://-a/b",
				"ssh://-oProxyCommand=x/a", "HTTPS://git.example.org/a", "ftp://git.example.org/a", "ext::sh -c x", "ext::sh", "git+ssh://a/b",
				"ext::ssh://a/b", "git@-oProxyCommand=x:a", "git@git.example.org:-a", "git@git.example.org:", "@git.example.org:a",
				"file://git.example.org/a", "file:///", "file://", "https://[::1/a", "https://::1/a", "git@[::1:a", "[a]:b", "https://[a]/b",
				"https://git.example.org/a%00", "https://git.example.org/a%0a", "https://git.example.org/a%7f", "https://git.example.org/a%",
				"https://git.example.org/a%zz", "https://git.example.org/a\\b", "https://git.example.org/\u00e4", "https://git.example.org/`a`",
				"https://git.example.org/a?token=x", "https://git.example.org/a#x", "https://@git.example.org/a", "https://-x@git.example.org/a",
				"https://a@b@git.example.org/a", "https://a%3ab@git.example.org/a", "https://git.example.org/" + long("a", 1001),
				"ssh://git@/a", "[::1]x:a", "https://[::1]x/a", "https://[::1]:/a",
				// secrets
				"https://ops:secret@git.example.org/a", "https://:secret@git.example.org/a", "https://ops:@git.example.org/a",
				"ssh://ops:secret@git.example.org/a", "ops:secret@git.example.org:a", "git@ops:secret@git.example.org:a",
				"https:/ops:secret@git.example.org/a", "https://ghp_0123456789@git.example.org/a", "https://github_pat_0@git.example.org/a",
				"https://glpat-0123@git.example.org/a", "https://" + long("0", 40) + "@git.example.org/a",
			},
		},
		{
			field: "git_branch",
			set:   func(n *Node, v string) { n.GitBranch = v },
			good:  []string{"main", "feature/x", "v1.2", "a@b", "release-1", "\u00e4", "a#b", "a{b", "refs/heads/x", "a-", long("a", 255)},
			bad: []string{"", "-b", "/a", "a/", "a//b", ".a", "a/.b", "a..b", "a.", "a.lock", "a.lock/b", "a b", "a~1", "a^", "a:b", "a?", "a*",
				"a[b", "a\\b", "a@{b", "@", "HEAD", "a\n", "a\x7f", "a\xff", long("a", 256)},
		},
		{
			field: "install_path",
			set:   func(n *Node, v string) { n.InstallPath = v },
			good:  []string{"/opt/hive", "~/hive", "/", "/opt/my hive", "~/", "/" + long("a", 1023)},
			bad:   []string{"", "hive", "~", "~ops/hive", "./hive", "-", "/a\n", "/a\x1b[0m", "/a\u2066", "/" + long("a", 1024)},
		},
		{
			field: "status",
			set:   func(n *Node, v string) { n.Status = Status(v) },
			good:  []string{"", "unknown", "online", "offline", "error"},
			bad:   []string{"reachable", "Online", "online ", "-"},
		},
		{
			field: "backends",
			set:   func(n *Node, v string) { n.Backends = []string{"cpu", v} },
			good:  []string{"cuda", "cuda-12.4", "rocm_6", "7", "cpu", long("a", 32)},
			bad:   []string{"", "CUDA", "-a", ".a", "_a", "a b", "a\"", "a,b", "\u00e4", "a\n", long("a", 33)},
		},
		{
			field: "devices",
			set:   func(n *Node, v string) { n.Devices = map[string]uint32{v: 1} },
			good:  []string{"cuda", "metal"},
			bad:   []string{"", "CUDA", "a b", "-a", long("a", 33)},
		},
		{
			field: "proxy_jump",
			set:   func(n *Node, v string) { n.ProxyJump = v },
			good:  []string{"", "bastion", "Hive_02.example.org", long("a", 64)},
			bad:   []string{"hive-01", "-J", "a b", "a,b", "ops@bastion", "a\n", long("a", 65)},
		},
		{
			field: "note",
			set:   func(n *Node, v string) { n.Note = v },
			good:  []string{"", "a", "Rack 3, next to the door: it's \"hot\".", "\u00e4 \u4e16", long("a", 1000)},
			bad:   []string{"-a", "a\nb", "a\x1b[2J", "a\x00", "a\xff", "a\ufffd", "a\u202eb", long("a", 1001)},
		},
		{
			field: "labels",
			set:   func(n *Node, v string) { n.Labels = map[string]string{"rack": "3", v: "x"} },
			good:  []string{"a", "A", "7", "gpu.example.org", "a-b_c.d", long("a", 63)},
			bad:   []string{"", "-a", "a-", ".a", "a.", "_a", "a_", "a b", "a=b", "a,b", "a/b", "\u00e4", "a\n", long("a", 64)},
		},
		{
			field: "labels",
			set:   func(n *Node, v string) { n.Labels = map[string]string{"rack": v} },
			good:  []string{"", "a", "3", "v1.2", long("a", 63)},
			bad:   []string{"-a", "a-", "a b", "a=b", "a,b", "\u00e4", "a\n", long("a", 64)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.field, func(t *testing.T) {
			for _, value := range tt.good {
				n := testNode()
				tt.set(&n, value)
				if err := n.Validate(); err != nil {
					t.Errorf("%q: %v", value, err)
				}
			}
			for _, value := range tt.bad {
				n := testNode()
				tt.set(&n, value)
				err := n.Validate()
				var fe *FieldError
				if !errors.Is(err, ErrInvalid) || !errors.As(err, &fe) || fe.Field != tt.field {
					t.Errorf("%.60q: got %v, want an error of %s", value, err, tt.field)
				}
				if len(value) > 8 && strings.Contains(err.Error(), value) {
					t.Errorf("%.60q: the error holds the value", value)
				}
			}
		})
	}
}

func TestValidateNumbers(t *testing.T) {
	fields := map[string]func(n *Node){
		"ssh_port":            func(n *Node) { n.SSHPort = 0 },
		"last_connected_unix": func(n *Node) { n.LastConnected = time.Unix(-1, 0) },
		"backends":            func(n *Node) { n.Backends = slices.Repeat([]string{"cpu"}, maxBackends+1) },
		"devices": func(n *Node) {
			n.Devices = make(map[string]uint32)
			for i := range maxBackends + 1 {
				n.Devices[fmt.Sprintf("b%d", i)] = 1
			}
		},
		"labels": func(n *Node) {
			n.Labels = make(map[string]string)
			for i := range maxLabels + 1 {
				n.Labels[fmt.Sprintf("l%d", i)] = ""
			}
		},
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		n := testNode()
		fields[field](&n)
		var fe *FieldError
		if err := n.Validate(); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	n := testNode()
	n.Labels = make(map[string]string)
	for i := range maxLabels {
		n.Labels[fmt.Sprintf("l%d", i)] = ""
	}
	if err := n.Validate(); err != nil {
		t.Errorf("%d labels: %v", maxLabels, err)
	}
	n.LastConnected = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := n.Validate(); !errors.Is(err, ErrInvalid) {
		t.Errorf("year 10000: got %v", err)
	}
}

func TestURLSecretsAreNamed(t *testing.T) {
	for _, url := range []string{
		"https://ops:secret@git.example.org/a",
		"ops:secret@git.example.org:a",
		"https://ghp_secret@git.example.org/a",
	} {
		if rule := ruleGitURL(url); rule != ruleURLSecret {
			t.Errorf("%q: got rule %q", url, rule)
		}
	}
}

func TestExpandPath(t *testing.T) {
	for _, tt := range []struct{ home, path, want string }{
		{"/home/ops", "~/.ssh/k", "/home/ops/.ssh/k"},
		{"/home/ops/", "~", "/home/ops/"},
		{"/home/ops", "~other/k", "~other/k"},
		{"/home/ops", "/k", "/k"},
		{"/home/ops", "k~", "k~"},
		{"/home/ops", "", ""},
		{"", "~/k", "~/k"},
	} {
		if got := ExpandPath(tt.home, tt.path); got != tt.want {
			t.Errorf("ExpandPath(%q, %q) = %q, want %q", tt.home, tt.path, got, tt.want)
		}
	}
}
