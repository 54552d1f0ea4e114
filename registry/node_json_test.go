package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	testNodeJSON = `{"node_name":"hive-01","ssh_host":"hive-01.example.org","ssh_port":2222,"ssh_user":"ops",` +
		`"ssh_key_path":"/home/ops/.ssh/id_ed25519","git_repo_url":"https://git.example.org/fleet/hive.git","git_branch":"main",` +
		`"install_path":"~/hive","last_connected_unix":1767323045,"status":"online","backends":["cpu","cuda"],"devices":{"cpu":1,"cuda":2}}`
	bareNodeJSON = `{"node_name":"hive-02","ssh_host":"hive-02.example.org","ssh_port":22,"ssh_user":"ops","ssh_key_path":null,` +
		`"git_repo_url":"https://git.example.org/fleet/hive.git","git_branch":"main","install_path":"/opt/hive",` +
		`"last_connected_unix":null,"status":"unknown","backends":null,"devices":null}`
)

const richNodeMore = `,"proxy_jump":"hive-02","note":"behind the bastion; Ä, é, 世","labels":{"rack":"3","role":"training","spare":""}}`

// richNodeJSON is richNode.
func richNodeJSON() string { return testNodeJSON[:len(testNodeJSON)-1] + richNodeMore }

func TestNodeJSON(t *testing.T) {
	empty := bareNode("hive-03")
	empty.Backends, empty.Devices = []string{}, map[string]uint32{}
	html := bareNode("hive-04")
	html.InstallPath = "/opt/<a>&b"
	html.LastConnected = time.Unix(0, 0).UTC()
	for _, tt := range []struct {
		name string
		node Node
		want string
	}{
		{"full", testNode(), testNodeJSON},
		{"details", richNode(), richNodeJSON()},
		{"unknown", bareNode("hive-02"), bareNodeJSON},
		{"empty", empty, strings.NewReplacer("hive-02", "hive-03", `"backends":null,"devices":null`, `"backends":[],"devices":{}`).Replace(bareNodeJSON)},
		{"html", html, strings.NewReplacer("hive-02", "hive-04", "/opt/hive", "/opt/<a>&b", `unix":null`, `unix":0`).Replace(bareNodeJSON)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.node.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			var back Node
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.node, back); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodeJSONNormalizes(t *testing.T) {
	n := testNode()
	n.Backends = []string{"cuda", "cpu", "cuda"}
	n.Status = ""
	n.LastConnected = n.LastConnected.Add(time.Millisecond).In(time.FixedZone("", 3600))
	got, err := n.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(testNodeJSON, "online", "unknown", 1); string(got) != want {
		t.Errorf("got %s", got)
	}
	for field, change := range map[string]func(*Node){
		"install_path": func(n *Node) { n.InstallPath = "/\xff" },
		"proxy_jump":   func(n *Node) { n.ProxyJump = "\xff" },
		"note":         func(n *Node) { n.Note = "\xff" },
		"key":          func(n *Node) { n.Labels = map[string]string{"\xff": ""} },
		"value":        func(n *Node) { n.Labels = map[string]string{"a": "\xff"} },
	} {
		broken := n.normalized()
		change(&broken)
		if _, err := broken.MarshalJSON(); !errors.Is(err, ErrInvalid) {
			t.Errorf("broken UTF-8 in %s: got %v", field, err)
		}
	}
	n = testNode()
	n.Labels = map[string]string{}
	if got, err := n.MarshalJSON(); err != nil || string(got) != testNodeJSON {
		t.Errorf("no labels: %s, %v", got, err)
	}
}

func TestNodeJSONDefaults(t *testing.T) {
	in := `{"node_name":"hive-02","ssh_host":"hive-02.example.org","ssh_user":"ops","git_repo_url":"https://git.example.org/fleet/hive.git",` +
		`"git_branch":"main","install_path":"/opt/hive"}`
	var got Node
	if err := json.Unmarshal([]byte(in), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(bareNode("hive-02"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNodeJSONDetails: they may be absent, null or empty on input.
func TestNodeJSONDetails(t *testing.T) {
	for _, more := range []string{``, `,"proxy_jump":null,"note":null,"labels":null`, `,"labels":{},"proxy_jump":"","note":""`} {
		var got Node
		if err := json.Unmarshal([]byte(testNodeJSON[:len(testNodeJSON)-1]+more+"}"), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(testNode(), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", more, diff)
		}
	}
	in := strings.Replace(richNodeJSON(), `{"node_name"`, `{"labels":{"spare":"","role":"training","rack":"3"},"node_name"`, 1)
	in = strings.Replace(in, `,"labels":{"rack":"3","role":"training","spare":""}}`, "}", 1)
	var got Node
	if err := json.Unmarshal([]byte(in), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(richNode(), got); diff != "" {
		t.Errorf("in another order (-want +got):\n%s", diff)
	}
}

func TestNodeJSONRefuses(t *testing.T) {
	more := func(text string) string { return testNodeJSON[:len(testNodeJSON)-1] + "," + text + "}" }
	replace := func(old, new string) string { return strings.Replace(testNodeJSON, old, new, 1) }
	for name, in := range map[string]string{
		"null":                `null`,
		"array":               `[]`,
		"empty object":        `{}`,
		"unknown field":       replace(`"status"`, `"state"`),
		"other case":          replace(`"status"`, `"Status"`),
		"repeated field":      replace(`"ssh_port":2222`, `"ssh_port":2222,"ssh_port":22`),
		"repeated device":     replace(`{"cpu":1,`, `{"cpu":1,"cpu":1,`),
		"missing field":       replace(`"ssh_user":"ops",`, ``),
		"null text":           replace(`"ops"`, `null`),
		"null port":           replace(`2222`, `null`),
		"null status":         replace(`"online"`, `null`),
		"null backend":        replace(`["cpu"`, `[null`),
		"null device":         replace(`"cuda":2`, `"cuda":null`),
		"number for text":     replace(`"ops"`, `7`),
		"text for port":       replace(`2222`, `"2222"`),
		"port 0":              replace(`2222`, `0`),
		"port 65536":          replace(`2222`, `65536`),
		"port -1":             replace(`2222`, `-1`),
		"port 22.0":           replace(`2222`, `22.0`),
		"negative device":     replace(`"cuda":2`, `"cuda":-2`),
		"device 2^32":         replace(`"cuda":2`, `"cuda":4294967296`),
		"negative time":       replace(`1767323045`, `-1`),
		"time after 9999":     replace(`1767323045`, `253402300800`),
		"time as text":        replace(`1767323045`, `"2026-01-01"`),
		"status":              replace(`online`, `reachable`),
		"invalid value":       replace(`"ops"`, `"-ops"`),
		"broken UTF-8":        replace(`~/hive`, "~/\xff"),
		"lone surrogate":      replace(`~/hive`, `~/\ud800`),
		"escaped newline":     replace(`~/hive`, `~/\n`),
		"two objects":         testNodeJSON + testNodeJSON,
		"cut":                 testNodeJSON[:len(testNodeJSON)-1],
		"more behind":         testNodeJSON + "x",
		"backends as text":    replace(`["cpu","cuda"]`, `"cpu"`),
		"devices as an array": replace(`{"cpu":1,"cuda":2}`, `["cpu"]`),
		"jump to itself":      more(`"proxy_jump":"hive-01"`),
		"jump as a list":      more(`"proxy_jump":["hive-02"]`),
		"jump as an option":   more(`"proxy_jump":"-J"`),
		"note as a number":    more(`"note":7`),
		"note of two lines":   more(`"note":"a\nb"`),
		"labels as a list":    more(`"labels":["rack"]`),
		"labels as text":      more(`"labels":"rack=3"`),
		"number for a value":  more(`"labels":{"rack":3}`),
		"null for a value":    more(`"labels":{"rack":null}`),
		"repeated label":      more(`"labels":{"rack":"3","rack":"3"}`),
		"label's key":         more(`"labels":{"rack/row":"3"}`),
		"label's value":       more(`"labels":{"rack":"3 "}`),
		"labels twice":        more(`"labels":{},"labels":{}`),
	} {
		t.Run(name, func(t *testing.T) {
			n := bareNode("before")
			if err := n.UnmarshalJSON([]byte(in)); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(bareNode("before"), n); diff != "" {
				t.Errorf("the node changed:\n%s", diff)
			}
		})
	}
}

func TestCapabilityText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string // nil: refused
	}{
		{`[]`, []string{}},
		{`["cpu"]`, []string{"cpu"}},
		{`["cpu","cuda"]`, []string{"cpu", "cuda"}},
		{`["cuda", "cpu", "cuda"]`, []string{"cpu", "cuda"}},
		{`[ ]`, []string{}},
		{`["\u0063pu"]`, []string{"cpu"}},
		{``, nil}, {`null`, nil}, {`[`, nil}, {`["cpu]`, nil}, {`["cpu",]`, nil}, {`[null]`, nil}, {`[1]`, nil}, {`{}`, nil}, {`"cpu"`, nil}, {`["cpu"]x`, nil},
	} {
		got, err := parseBackends(tt.in)
		if (err == nil) != (tt.want != nil) || err == nil && !cmp.Equal(got, tt.want) {
			t.Errorf("parseBackends(%q) = %q, %v", tt.in, got, err)
		}
	}
	for _, tt := range []struct {
		in   string
		want map[string]uint32
	}{
		{`{}`, map[string]uint32{}},
		{`{"cpu":1}`, map[string]uint32{"cpu": 1}},
		{`{"cuda": 2, "cpu": 0}`, map[string]uint32{"cpu": 0, "cuda": 2}},
		{`{"cpu":4294967295}`, map[string]uint32{"cpu": math.MaxUint32}},
		{``, nil}, {`null`, nil}, {`{`, nil}, {`{"cpu"}`, nil}, {`{"cpu":}`, nil}, {`{"cpu":01}`, nil}, {`{"cpu":-1}`, nil}, {`{"cpu":4294967296}`, nil},
		{`{"cpu":1,}`, nil}, {`{"cpu":1,"cpu":1}`, nil}, {`{"cpu":1.5}`, nil}, {`{"cpu":null}`, nil}, {`[]`, nil}, {`{"cpu":1}x`, nil}, {`{,}`, nil},
	} {
		got, err := parseDevices(tt.in)
		if (err == nil) != (tt.want != nil) || err == nil && !cmp.Equal(got, tt.want) {
			t.Errorf("parseDevices(%q) = %v, %v", tt.in, got, err)
		}
	}
}

func FuzzNodeJSON(f *testing.F) {
	f.Add([]byte(testNodeJSON))
	f.Add([]byte(bareNodeJSON))
	f.Add([]byte(richNodeJSON()))
	f.Add([]byte(strings.Replace(testNodeJSON, `["cpu","cuda"]`, `[ "cuda" , "cpu" ]`, 1)))
	f.Add([]byte(`{"node_name":"a","node_name":"b"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var n Node
		if err := n.UnmarshalJSON(data); err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("an error that is not ErrInvalid: %v", err)
			}
			if !cmp.Equal(n, Node{}) {
				t.Fatal("a value beside an error")
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("read what is no JSON")
		}
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		once, err := n.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back Node
		if err := back.UnmarshalJSON(once); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if diff := cmp.Diff(n, back); diff != "" {
			t.Fatal(diff)
		}
		twice, err := back.MarshalJSON()
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
	})
}

// TestKeysOnlyInLines: the fingerprints in JSON lines are ignored by an import, and refused
// in the JSON of a node.
func TestKeysOnlyInLines(t *testing.T) {
	line, err := testNode().MarshalJSON()
	check(t, err)
	for keys, want := range map[string]bool{
		`,"ssh_key":"SHA256:x","host_keys":["SHA256:y"]}`: true,
		`,"ssh_key":null,"host_keys":[]}`:                 true,
		`,"ssh_key":7}`:                                   false,
		`,"host_keys":"SHA256:y"}`:                        false,
		`,"ssh_key":null,"ssh_key":null}`:                 false,
		`,"ssh_keys":null}`:                               false,
	} {
		text := strings.TrimSuffix(string(line), "}") + keys
		set, err := ReadNDJSON(strings.NewReader(text))
		check(t, err)
		if taken := len(set.Nodes) == 1 && len(set.Skipped) == 0; taken != want {
			t.Errorf("%s: %v", keys, set)
		}
		if err := new(Node).UnmarshalJSON([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s as a node: %v", keys, err)
		}
	}
}
