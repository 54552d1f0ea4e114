package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// etag is that of what PUT can set. Status and last contact change at every heartbeat, and
// are not in it.
func etag(n registry.Node) (string, error) {
	n.Status, n.LastConnected = registry.StatusUnknown, time.Time{}
	data, err := n.MarshalJSON()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`, nil
}

// answerNode sends a node with its ETag.
func (s *Server) answerNode(w http.ResponseWriter, status int, n registry.Node) {
	tag, err := etag(n)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("ETag", tag)
	s.answer(w, status, n)
}

func (s *Server) getNode(w http.ResponseWriter, r *http.Request) {
	n, err := s.node(r.Context(), r.PathValue("name"))
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answerNode(w, http.StatusOK, n)
}

func (s *Server) node(ctx context.Context, name string) (n registry.Node, err error) {
	err = s.cfg.Registry(ctx, func(r *registry.Registry) (err error) {
		n, err = r.GetNode(ctx, name)
		return err
	})
	return n, err
}

// putNode sets the configuration of a node: everything but status and last contact. With
// If-Match only the node as the client saw it is changed; with If-None-Match: * only a new
// one is made.
func (s *Server) putNode(w http.ResponseWriter, r *http.Request) {
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	var n registry.Node
	if err := n.UnmarshalJSON(data); err != nil {
		s.fail(w, err)
		return
	}
	if n.Name != r.PathValue("name") {
		s.fail(w, &registry.FieldError{Field: "node_name", Rule: "must be the name in the path"})
		return
	}
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	status := http.StatusOK
	err := s.cfg.Registry(r.Context(), func(reg *registry.Registry) (err error) {
		switch {
		case none != "" && none != "*" || none != "" && match != "":
			return &registry.FieldError{Field: "If-None-Match", Rule: "must be *, and alone"}
		case none == "*":
			n.Status, n.LastConnected = registry.StatusUnknown, time.Time{}
			if err = reg.CreateNode(r.Context(), n); err == nil {
				status = http.StatusCreated
			}
		case match != "":
			err = reg.UpdateNode(r.Context(), n.Name, func(old *registry.Node) error {
				if err := checkMatch(match, *old); err != nil {
					return err
				}
				n.Status, n.LastConnected = old.Status, old.LastConnected
				*old = n
				return nil
			})
		default:
			if status, err = put(r.Context(), reg, n); err != nil {
				return err
			}
		}
		if err == nil {
			n, err = reg.GetNode(r.Context(), n.Name)
		}
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answerNode(w, status, n)
}

// put creates a node, or sets the configuration of the one that is there.
func put(ctx context.Context, reg *registry.Registry, n registry.Node) (status int, err error) {
	fresh := n
	fresh.Status, fresh.LastConnected = registry.StatusUnknown, time.Time{}
	err = reg.CreateNode(ctx, fresh)
	if err == nil {
		return http.StatusCreated, nil
	}
	if !errors.Is(err, registry.ErrExists) {
		return 0, err
	}
	return http.StatusOK, reg.UpdateNode(ctx, n.Name, func(old *registry.Node) error {
		n.Status, n.LastConnected = old.Status, old.LastConnected
		*old = n
		return nil
	})
}

func checkMatch(match string, n registry.Node) error {
	tag, err := etag(n)
	if err != nil {
		return err
	}
	if match != "*" && match != tag {
		return fmt.Errorf("node %q: %w", n.Name, errPrecondition)
	}
	return nil
}

// patchNode changes the fields that the body has (RFC 7396): null removes a value.
func (s *Server) patchNode(w http.ResponseWriter, r *http.Request) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/merge-patch+json" && kind != "application/json" {
		s.problem(w, http.StatusUnsupportedMediaType, Problem{Code: 16, Name: "invalid", Message: "the body must be application/merge-patch+json"})
		return
	}
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	var patch map[string]json.RawMessage
	if err := json.Unmarshal(data, &patch); err != nil || patch == nil {
		s.fail(w, &registry.FieldError{Field: "body", Rule: "must be a JSON object"})
		return
	}
	for _, state := range []string{"node_name", "status", "last_connected_unix"} {
		if _, ok := patch[state]; ok {
			s.fail(w, &registry.FieldError{Field: state, Rule: "cannot be patched"})
			return
		}
	}
	match := r.Header.Get("If-Match")
	var n registry.Node
	err := s.cfg.Registry(r.Context(), func(reg *registry.Registry) error {
		err := reg.UpdateNode(r.Context(), r.PathValue("name"), func(old *registry.Node) error {
			if match != "" {
				if err := checkMatch(match, *old); err != nil {
					return err
				}
			}
			merged, err := merge(*old, patch)
			*old, n = merged, merged
			return err
		})
		if err != nil {
			return err
		}
		n, err = reg.GetNode(r.Context(), n.Name)
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answerNode(w, http.StatusOK, n)
}

// merge returns a node with the fields of a patch. Labels are merged by their keys.
func merge(n registry.Node, patch map[string]json.RawMessage) (registry.Node, error) {
	data, err := n.MarshalJSON()
	if err != nil {
		return n, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return n, err
	}
	for name, value := range patch {
		if name == "labels" || name == "devices" {
			if value, err = mergeMaps(fields[name], value); err != nil {
				return n, &registry.FieldError{Field: name, Rule: "must be an object"}
			}
		}
		fields[name] = value
	}
	if data, err = json.Marshal(fields); err != nil {
		return n, &registry.FieldError{Field: "body", Rule: "must be a JSON object"}
	}
	var merged registry.Node
	err = merged.UnmarshalJSON(data)
	return merged, err
}

func mergeMaps(old, patch json.RawMessage) (json.RawMessage, error) {
	if string(patch) == "null" {
		return patch, nil
	}
	all := map[string]json.RawMessage{}
	if len(old) > 0 && string(old) != "null" {
		if err := json.Unmarshal(old, &all); err != nil {
			return nil, err
		}
	}
	var changes map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changes); err != nil {
		return nil, err
	}
	for key, value := range changes {
		if string(value) == "null" {
			delete(all, key)
		} else {
			all[key] = value
		}
	}
	return json.Marshal(all)
}

// deleteNode removes a node. With If-Match only the node as the client saw it is removed.
func (s *Server) deleteNode(w http.ResponseWriter, r *http.Request) {
	name, match := r.PathValue("name"), r.Header.Get("If-Match")
	var check func(registry.Node) error
	if match != "" {
		check = func(n registry.Node) error { return checkMatch(match, n) }
	}
	err := s.cfg.Registry(r.Context(), func(reg *registry.Registry) error {
		removed, err := reg.RemoveNodeIf(r.Context(), name, check)
		if err == nil && !removed {
			err = fmt.Errorf("node %q: %w", name, registry.ErrNotFound)
		}
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
