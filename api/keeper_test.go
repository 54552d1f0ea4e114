package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// TestKeeper sends what the earlier keeper sends, and gets what it expects.
func TestKeeper(t *testing.T) {
	s := serve(t, nil)
	const (
		add    = "/v2/registry/beehives/add"
		list   = "/v2/registry/beehives/list"
		remove = "/v2/registry/beehives/remove"
		hive   = `{"node_name":"hive-01","ssh_host":"192.0.2.1","ssh_port":22,"ssh_user":"ops","ssh_key_path":null,"git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee","last_connected_unix":null,"status":"unknown","backends":["cpu","cuda"],"devices":{"cpu":1,"cuda":2}}`
	)
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/health", "", 200, `{"status":"ok","version":"0.1.0"}`},
		{"GET", list, "", 200, `{"nodes":[]}`},
		{"POST", add, `{"node_name":"hive-01","ssh_host":"192.0.2.1","ssh_port":22,"ssh_user":"ops","ssh_key_path":null,"git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee","backends":"[\"cpu\",\"cuda\"]","devices":"{\"cuda\":2,\"cpu\":1}"}`,
			200, `{"success":true,"message":"Node 'hive-01' added successfully","node_name":"hive-01"}`},
		{"GET", list, "", 200, `{"nodes":[` + hive + `]}`},
		// Again: the configuration is replaced, and what it does not name stays.
		{"POST", add, `{"node_name":"hive-01","ssh_host":"192.0.2.1","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee"}`,
			200, `{"success":true,"message":"Node 'hive-01' added successfully","node_name":"hive-01"}`},
		{"GET", list, "", 200, `{"nodes":[` + hive + `]}`},
		// Arrays and objects are taken too.
		{"POST", add, `{"node_name":"hive-02","ssh_host":"192.0.2.2","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee","backends":["cpu"],"devices":{"cpu":1}}`,
			200, `{"success":true,"message":"Node 'hive-02' added successfully","node_name":"hive-02"}`},
		{"POST", add, `{"node_name":"-x","ssh_host":"192.0.2.2","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee"}`,
			400, `{"success":false,"message":"Invalid node name: `},
		{"POST", add, `{"node_name":"hive-03","ssh_host":"192.0.2.2","ssh_user":"-oProxyCommand=x","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee"}`,
			400, `{"success":false,"message":"Invalid request: ssh_user `},
		{"POST", add, `{"node_name":"hive-03","ssh_host":"192.0.2.2","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee","backends":"nothing"}`,
			400, `{"success":false,"message":"Invalid request: backends must be JSON"`},
		{"POST", add, `nothing`, 400, `{"success":false,"message":"Invalid request: the body is not a JSON object","node_name":null}`},
		{"POST", remove, `{"node_name":"hive-02"}`, 200, `{"success":true,"message":"Node 'hive-02' removed successfully","node_name":"hive-02"}`},
		{"POST", remove, `{"node_name":"hive-02"}`, 404, `{"success":false,"message":"Node 'hive-02' not found","node_name":"hive-02"}`},
		{"POST", remove, `{"node_name":7}`, 400, `{"success":false,"message":"Invalid request: `},
		{"POST", remove, `{}`, 400, `{"success":false,"message":"Invalid request: node_name is missing","node_name":null}`},
	} {
		status, got, _ := s.do(t, step.method, step.path, step.body)
		if status != step.status || !strings.HasPrefix(got, step.want) {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", step.method, step.path, step.body, status, got, step.status, step.want)
		}
	}
	// Over the loopback interface, as the keeper calls: without credentials.
	if status, got, _ := send(t, http.DefaultClient, "GET", "http://"+strings.Replace(s.tcp, "127.0.0.1", "localhost", 1)+list, ""); status != 200 || !strings.Contains(got, "hive-01") {
		t.Errorf("%d %s", status, got)
	}
	// An error is an error, and no empty list.
	check(t, s.registry.Vault().Close())
	for _, step := range []struct{ method, path, body, want string }{
		{"GET", list, "", `{"error":{"code":11,`},
		{"POST", add, `{"node_name":"hive-04","ssh_host":"192.0.2.4","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt/rbee"}`, `{"success":false,"message":"Failed to save node: `},
		{"POST", remove, `{"node_name":"hive-01"}`, `{"success":false,"message":"Failed to remove node: `},
	} {
		if status, got, _ := s.do(t, step.method, step.path, step.body); status != 503 || !strings.HasPrefix(got, step.want) {
			t.Errorf("%s: %d %s", step.path, status, got)
		}
	}
}

// FuzzKeeperNode: whatever a body says, it is a valid node or an error.
func FuzzKeeperNode(f *testing.F) {
	f.Add([]byte(`{"node_name":"hive-01","ssh_host":"192.0.2.1","ssh_user":"ops","git_repo_url":"https://example.org/r.git","git_branch":"main","install_path":"/opt","backends":"[\"cpu\"]","devices":"{}"}`))
	f.Add([]byte(`{"backends":"null","devices":""}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := keeperNode(body)
		if err != nil {
			return
		}
		if err := n.Validate(); err != nil && !errors.Is(err, registry.ErrInvalid) || err != nil {
			t.Errorf("%q gave a node that is not valid: %v", body, err)
		}
	})
}
