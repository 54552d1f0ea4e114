package api

import (
	"encoding/base64"
	"fmt"
	"net/http"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// sign signs a login with the node's key, if the host is one of the pinned, and the request
// is for this session.
func (s *Server) sign(w http.ResponseWriter, r *http.Request) {
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	l := agent.Login{Node: r.PathValue("name"), Peer: connOf(r).peer}
	var host, session, signature, request string
	err := wire.UnmarshalObject(data, []wire.Field{
		{Name: "host_key", Value: &host, Required: true},
		{Name: "session_id", Value: &session, Required: true},
		{Name: "host_signature", Value: &signature, Required: true},
		{Name: "request", Value: &request, Required: true},
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	for _, f := range []struct {
		name, text string
		to         *[]byte
	}{{"host_key", host, &l.HostKey}, {"session_id", session, &l.SessionID}, {"host_signature", signature, &l.HostSignature}, {"request", request, &l.Request}} {
		if *f.to, err = base64.StdEncoding.DecodeString(f.text); err != nil {
			s.fail(w, &registry.FieldError{Field: f.name, Rule: "must be base64"})
			return
		}
	}
	if s.cfg.Agent == nil {
		s.fail(w, errNoSigning)
		return
	}
	signed, err := s.cfg.Agent.SignLogin(r.Context(), l)
	if err != nil {
		err = fmt.Errorf("sign a login to node %q: %w", l.Node, err)
		status, p := s.explain(err)
		if p.Code == 1 { // not the vault's error, so the rules'
			status, p.Name = http.StatusForbidden, "refused"
		}
		s.problem(w, status, p)
		return
	}
	s.answer(w, http.StatusOK, struct {
		Format    string `json:"format"`
		Signature string `json:"signature"`
	}{signed.Format, base64.StdEncoding.EncodeToString(ssh.Marshal(signed))})
}
