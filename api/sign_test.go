package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// loginData is what a client signs to log in (RFC 4252, section 7).
func loginData(session []byte, user string, key ssh.PublicKey) []byte {
	return ssh.Marshal(struct {
		Session               []byte
		Message               byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Key                   []byte
	}{session, 50, user, "ssh-connection", "publickey", true, key.Type(), key.Marshal()})
}

// TestSign: the server signs what the agent would, and nothing else.
func TestSign(t *testing.T) {
	s := serve(t, nil)
	check(t, s.registry.CreateNode(t.Context(), node("hive-01")))
	check(t, s.registry.CreateNode(t.Context(), node("hive-02")))
	stored, err := s.registry.GenerateSSHKey(t.Context(), "ed25519", "", "hive-01")
	check(t, err)
	_, err = s.registry.GenerateSSHKey(t.Context(), "ed25519", "", "hive-02")
	check(t, err)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(stored.PublicKey))
	check(t, err)
	newHost := func() ssh.Signer {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		check(t, err)
		signer, err := ssh.NewSignerFromSigner(private)
		check(t, err)
		return signer
	}
	host, stranger := newHost(), newHost()
	_, err = s.registry.TrustHostKey(t.Context(), "hive-01", host.PublicKey())
	check(t, err)
	session := []byte("a session id of thirty-two bytes")
	ask := func(name string, host ssh.Signer, proven, request []byte) (int, string) {
		signature, err := host.Sign(rand.Reader, proven)
		check(t, err)
		encode := base64.StdEncoding.EncodeToString
		body := fmt.Sprintf(`{"host_key":%q,"session_id":%q,"host_signature":%q,"request":%q}`,
			encode(host.PublicKey().Marshal()), encode(session), encode(ssh.Marshal(signature)), encode(request))
		status, got, _ := s.do(t, "POST", "/v2/registry/beehives/"+name+"/sign", body)
		return status, got
	}
	request := loginData(session, "ops", key)
	status, got := ask("hive-01", host, session, request)
	var answer struct{ Format, Signature string }
	if err := json.Unmarshal([]byte(got), &answer); err != nil || status != 200 {
		t.Fatalf("%d %s", status, got)
	}
	blob, err := base64.StdEncoding.DecodeString(answer.Signature)
	check(t, err)
	var signature ssh.Signature
	check(t, ssh.Unmarshal(blob, &signature))
	check(t, key.Verify(request, &signature))

	for _, bad := range []struct {
		name    string
		node    string
		host    ssh.Signer
		proven  []byte
		request []byte
	}{
		{"another node", "hive-02", host, session, request},
		{"no node", "nobody", host, session, request},
		{"a host that is not pinned", "hive-01", stranger, session, request},
		{"a host that proves another session", "hive-01", host, []byte("another session"), request},
		{"a login to another session", "hive-01", host, session, loginData([]byte("another session"), "ops", key)},
		{"no login", "hive-01", host, session, []byte("SSHSIG")},
		{"a login with another key", "hive-01", host, session, loginData(session, "ops", stranger.PublicKey())},
	} {
		if status, got := ask(bad.node, bad.host, bad.proven, bad.request); status != 403 || errorOf(t, got) != "refused" {
			t.Errorf("%s: %d %s", bad.name, status, got)
		}
	}
	rows, err := auditRows(t, s)
	check(t, err)
	signed := 0
	for _, row := range rows {
		if row.Action == string(registry.ActionSignSSHKey) {
			signed++
			if !strings.Contains(row.Detail, "hive-01") || !strings.Contains(row.Detail, "pid ") {
				t.Errorf("audited: %+v", row)
			}
		}
	}
	if signed != 1 {
		t.Errorf("%d signatures are in the log", signed)
	}
	if status, got, _ := s.do(t, "POST", "/v2/registry/beehives/hive-01/sign", `{"host_key":"!","session_id":"","host_signature":"","request":""}`); status != 400 {
		t.Errorf("%d %s", status, got)
	}
	s.cfg.Agent = nil
	if status, got := ask("hive-01", host, session, request); status != 501 {
		t.Errorf("without keys: %d %s", status, got)
	}
}
