package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// The routes of the earlier registry, as its keeper calls them. Its bodies have backends
// and devices as strings of JSON; the values themselves are taken too. Fields that it does
// not know are refused, as everywhere.

// keeperAnswer is the answer of add and remove.
type keeperAnswer struct {
	Success  bool    `json:"success"`
	Message  string  `json:"message"`
	NodeName *string `json:"node_name"`
}

func (s *Server) keeperFail(w http.ResponseWriter, status int, name, message string) {
	s.answer(w, status, keeperAnswer{Message: message, NodeName: wire.Nullable(name)})
}

// keeperAdd adds a node, or replaces the configuration of the node of that name. It does not
// log in to it.
func (s *Server) keeperAdd(w http.ResponseWriter, r *http.Request) {
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	n, err := keeperNode(data)
	if err != nil {
		message := "Invalid request: " + err.Error()
		var field *registry.FieldError
		if errors.As(err, &field) && field.Field == "node_name" {
			message = "Invalid node name: " + field.Rule
		}
		s.keeperFail(w, http.StatusBadRequest, n.Name, message)
		return
	}
	err = s.cfg.Registry(r.Context(), func(r2 *registry.Registry) error { return r2.AddNode(r.Context(), n) })
	if err != nil {
		status, p := s.explain(err)
		s.keeperFail(w, status, n.Name, "Failed to save node: "+p.Message)
		return
	}
	s.answer(w, http.StatusOK, keeperAnswer{true, fmt.Sprintf("Node '%s' added successfully", n.Name), &n.Name})
}

// keeperNode parses the keeper's body. Of a node that is not valid, the name may be known.
func keeperNode(data []byte) (n registry.Node, err error) {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return n, errors.New("the body is not a JSON object")
	}
	for _, name := range []string{"backends", "devices"} {
		var text string
		if json.Unmarshal(fields[name], &text) == nil && len(fields[name]) > 0 {
			fields[name] = json.RawMessage(text)
			if text == "" || !json.Valid(fields[name]) {
				return n, &registry.FieldError{Field: name, Rule: "must be JSON"}
			}
			// Only there may the body differ from a node's.
			data = nil
		}
	}
	if data == nil {
		if data, err = json.Marshal(fields); err != nil {
			return n, err
		}
	}
	json.Unmarshal(fields["node_name"], &n.Name)
	return n, n.UnmarshalJSON(bytes.TrimSpace(data))
}

// keeperList lists all nodes. A failure is an error, and never an empty list.
func (s *Server) keeperList(w http.ResponseWriter, r *http.Request) {
	var nodes []registry.Node
	err := s.cfg.Registry(r.Context(), func(r2 *registry.Registry) (err error) {
		nodes, err = r2.ListNodes(r.Context())
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, map[string][]registry.Node{"nodes": append([]registry.Node{}, nodes...)})
}

func (s *Server) keeperRemove(w http.ResponseWriter, r *http.Request) {
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	var name string
	if err := wire.UnmarshalObject(data, []wire.Field{{Name: "node_name", Value: &name, Required: true}}); err != nil {
		s.keeperFail(w, http.StatusBadRequest, "", "Invalid request: "+err.Error())
		return
	}
	var removed bool
	err := s.cfg.Registry(r.Context(), func(r2 *registry.Registry) (err error) {
		removed, err = r2.RemoveNode(r.Context(), name)
		return err
	})
	switch {
	case err != nil:
		status, p := s.explain(err)
		s.keeperFail(w, status, name, "Failed to remove node: "+p.Message)
	case !removed:
		s.keeperFail(w, http.StatusNotFound, name, fmt.Sprintf("Node '%s' not found", name))
	default:
		s.answer(w, http.StatusOK, keeperAnswer{true, fmt.Sprintf("Node '%s' removed successfully", name), &name})
	}
}
