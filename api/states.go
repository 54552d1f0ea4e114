package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// stateJSON is the state of a node, as a client reports it.
type stateJSON struct{ state registry.State }

// UnmarshalJSON implements [json.Unmarshaler].
func (j *stateJSON) UnmarshalJSON(data []byte) error {
	var status string
	var seconds, lag int64
	err := wire.UnmarshalObject(data, []wire.Field{
		{Name: "node_name", Value: &j.state.Node, Required: true},
		{Name: "status", Value: &status, Required: true},
		{Name: "last_connected_unix", Value: &seconds, Nullable: true},
		{Name: "lag_seconds", Value: &lag, Nullable: true},
	})
	if err != nil {
		return err
	}
	j.state.Status = registry.Status(status)
	if seconds != 0 {
		j.state.LastConnected = time.Unix(seconds, 0)
	}
	if lag < 0 || lag > int64(24*time.Hour/time.Second) {
		return &registry.FieldError{Field: "lag_seconds", Rule: "must be 0 to 86400"}
	}
	j.state.Lag = time.Duration(lag) * time.Second
	return nil
}

// updateStates stores the states of many nodes in one transaction. It may be called at
// every heartbeat: what did not change is not written.
func (s *Server) updateStates(w http.ResponseWriter, r *http.Request) {
	data, ok := s.body(w, r)
	if !ok {
		return
	}
	var list []json.RawMessage
	if err := wire.UnmarshalObject(data, []wire.Field{{Name: "states", Value: &list, Required: true}}); err != nil {
		s.fail(w, err)
		return
	}
	states := make([]registry.State, len(list))
	for i, raw := range list {
		var j stateJSON
		if err := j.UnmarshalJSON(raw); err != nil {
			s.fail(w, err)
			return
		}
		states[i] = j.state
	}
	var report registry.StatesReport
	err := s.cfg.Registry(r.Context(), func(reg *registry.Registry) (err error) {
		report, err = reg.UpdateStates(r.Context(), states)
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	if report.Missing == nil {
		report.Missing = []string{}
	}
	s.answer(w, http.StatusOK, struct {
		Written int      `json:"written"`
		Missing []string `json:"missing"`
	}{report.Written, report.Missing})
}
