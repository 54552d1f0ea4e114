package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func TestNodes(t *testing.T) {
	s := serve(t, nil)
	const path = "/v2/registry/beehives/hive-01"
	n := node("hive-01")
	n.Labels, n.Devices, n.Backends = map[string]string{"rack": "3"}, map[string]uint32{"cuda": 2}, []string{"cuda"}
	want := func(name string, status int, got string, wantStatus int, wantError string) {
		t.Helper()
		if status != wantStatus || wantError != "" && errorOf(t, got) != wantError {
			t.Errorf("%s: %d %s, want %d %s", name, status, got, wantStatus, wantError)
		}
	}
	status, got, _ := s.do(t, "GET", path, "")
	want("before", status, got, 404, "not_found")
	status, got, head := s.do(t, "PUT", path, nodeText(t, n), "If-None-Match", "*")
	want("create", status, got, 201, "")
	first := head.Get("ETag")
	status, got, _ = s.do(t, "PUT", path, nodeText(t, n), "If-None-Match", "*")
	want("create again", status, got, 409, "exists")

	// A state changes neither the ETag, nor is it changed by PUT.
	contact := time.Unix(1_800_000_000, 0)
	_, err := s.registry.UpdateStates(t.Context(), []registry.State{{Node: "hive-01", Status: registry.StatusOnline, LastConnected: contact}})
	check(t, err)
	n.SSHUser = "root"
	status, got, head = s.do(t, "PUT", path, nodeText(t, n), "If-Match", first)
	want("update", status, got, 200, "")
	if second := head.Get("ETag"); second == first || second == "" {
		t.Errorf("the ETag stays %s", second)
	}
	stored, err := s.registry.GetNode(t.Context(), "hive-01")
	check(t, err)
	if stored.SSHUser != "root" || stored.Status != registry.StatusOnline || !stored.LastConnected.Equal(contact) {
		t.Errorf("%+v", stored)
	}
	n.SSHUser = "other"
	for _, method := range []string{"PUT", "PATCH"} {
		body := nodeText(t, n)
		if method == "PATCH" {
			body = `{"ssh_user":"other"}`
		}
		status, got, _ = s.do(t, method, path, body, "If-Match", first)
		want(method+" of what changed", status, got, 412, "changed_meanwhile")
	}
	if again, err := s.registry.GetNode(t.Context(), "hive-01"); err != nil || again.SSHUser != "root" {
		t.Errorf("%+v, %v", again, err)
	}

	status, got, _ = s.do(t, "PATCH", path, `{"note":"spare","labels":{"rack":null,"row":"b"},"devices":{"cpu":1}}`, "Content-Type", "application/merge-patch+json")
	want("patch", status, got, 200, "")
	var patched registry.Node
	check(t, json.Unmarshal([]byte(got), &patched))
	if patched.Note != "spare" || len(patched.Labels) != 1 || patched.Labels["row"] != "b" || patched.Devices["cuda"] != 2 || patched.Devices["cpu"] != 1 || patched.SSHUser != "root" {
		t.Errorf("%s", got)
	}
	for _, bad := range []struct{ method, body, want string }{
		{"PATCH", `{"status":"online"}`, "invalid"},
		{"PATCH", `{"node_name":"x"}`, "invalid"},
		{"PATCH", `{"ssh_port":70000}`, "invalid"},
		{"PATCH", `{"ssh_host":null}`, "invalid"},
		{"PATCH", `{"labels":7}`, "invalid"},
		{"PATCH", `{"extra":7}`, "invalid"},
		{"PATCH", `null`, "invalid"},
		{"PUT", nodeText(t, node("hive-02")), "invalid"},
		{"PUT", `{}`, "invalid"},
	} {
		status, got, _ = s.do(t, bad.method, path, bad.body)
		want(bad.body, status, got, 400, bad.want)
	}
	status, got, _ = s.do(t, "PATCH", path, `x=1`, "Content-Type", "application/x-www-form-urlencoded")
	want("form", status, got, 415, "invalid")

	status, got, _ = s.do(t, "DELETE", path, "", "If-Match", first)
	want("delete what changed", status, got, 412, "changed_meanwhile")
	status, got, head = s.do(t, "GET", path, "")
	want("it is still there", status, got, 200, "")
	status, got, _ = s.do(t, "DELETE", path, "", "If-Match", head.Get("ETag"))
	want("delete", status, got, 204, "")
	status, got, _ = s.do(t, "DELETE", path, "", "If-Match", "*")
	want("delete again", status, got, 404, "not_found")
	status, got, _ = s.do(t, "DELETE", path, "")
	want("and again", status, got, 404, "not_found")
	status, got, _ = s.do(t, "PATCH", path, `{"note":"x"}`)
	want("patch of none", status, got, 404, "not_found")

	var audited []string
	rows, err := auditRows(t, s)
	check(t, err)
	for _, row := range rows {
		if strings.HasPrefix(row.Action, "node.") {
			audited = append(audited, row.Action)
		}
	}
	if len(audited) != 4 {
		t.Errorf("audited: %v", audited)
	}
}

func TestStates(t *testing.T) {
	s := serve(t, nil)
	check(t, s.registry.CreateNode(t.Context(), node("hive-01")))
	const body = `{"states":[{"node_name":"hive-01","status":"online","last_connected_unix":1800000000,"lag_seconds":60},{"node_name":"nobody","status":"offline"}]}`
	for i, want := range []string{`{"written":1,"missing":["nobody"]}`, `{"written":0,"missing":["nobody"]}`} {
		if status, got, _ := s.do(t, "POST", "/v2/registry/beehives/states", body); status != 200 || got != want {
			t.Errorf("%d: %d %s", i, status, got)
		}
	}
	for _, bad := range []string{`{"states":[{"node_name":"hive-01","status":"up"}]}`, `{"states":[{"status":"online"}]}`, `{"states":[{"node_name":"hive-01","status":"online","lag_seconds":-1}]}`, `{}`, `[]`} {
		if status, got, _ := s.do(t, "POST", "/v2/registry/beehives/states", bad); status != 400 || errorOf(t, got) != "invalid" {
			t.Errorf("%s: %d %s", bad, status, got)
		}
	}
}
