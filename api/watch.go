package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

const (
	watchInterval = time.Second
	// kept is how many changes a client may be behind before it gets the whole list.
	kept = 4096
	// maxWatchers limits the streams.
	maxWatchers = 256
	// queued is how many changes wait for a slow reader before it is dropped.
	queued = 1024
	// pingInterval keeps a quiet stream alive, and shows that its client is gone.
	pingInterval = 15 * time.Second
	writeTimeout = 10 * time.Second
)

// hub looks for changes once for all streams.
type hub struct {
	lend     Lender
	instance string // of this process: numbers of another one mean nothing here

	looking sync.Mutex // held from the snapshot to its comparison: a later one is never overtaken

	mu      sync.Mutex // guards what follows
	ready   bool       // nodes was read
	nodes   registry.Snapshot
	encoded []byte  // the event with all nodes, once a stream needed it
	number  int64   // of the newest change
	recent  []event // the newest changes, in their order
	streams map[*stream]bool
	stopped bool
}

// event is a change of a node.
type event struct {
	number int64
	change registry.Change
}

// stream is the end of a hub that one client reads.
type stream struct {
	events chan event // closed when the stream must end
}

func newHub(lend Lender) *hub {
	return &hub{lend: lend, instance: rand.Text()[:12], streams: map[*stream]bool{}}
}

// run looks for changes until ctx ends, as long as somebody watches.
func (h *hub) run(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var seen *vault.Vault
	var revision vault.Revision
	for {
		select {
		case <-ctx.Done():
			h.stop()
			return
		case <-tick.C:
		}
		if h.watchers() == 0 {
			continue
		}
		// An error passes: the vault may be closed for a rotation.
		h.lend(ctx, func(r *registry.Registry) error {
			now, err := r.Vault().Revision(ctx)
			if err != nil || seen == r.Vault() && now == revision {
				return err
			}
			if err := h.look(ctx, r); err != nil {
				return err
			}
			seen, revision = r.Vault(), now
			return nil
		})
	}
}

// look compares the nodes with those of the last look, and tells the streams.
func (h *hub) look(ctx context.Context, r *registry.Registry) error {
	h.looking.Lock()
	defer h.looking.Unlock()
	nodes, err := r.Snapshot(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready {
		for c := range nodes.Since(h.nodes) {
			h.tell(c)
		}
	}
	h.nodes, h.ready, h.encoded = nodes, true, nil
	return nil
}

// tell sends a change to each stream. A stream whose client does not keep up ends.
func (h *hub) tell(c registry.Change) {
	h.number++
	e := event{h.number, c}
	h.recent = append(h.recent, e)
	if len(h.recent) > 2*kept {
		h.recent = append([]event(nil), h.recent[len(h.recent)-kept:]...)
	}
	for s := range h.streams {
		select {
		case s.events <- e:
		default:
			delete(h.streams, s)
			close(s.events)
		}
	}
}

// joined is what a stream begins with: what happened behind the change that the client knows,
// or all nodes.
type joined struct {
	stream *stream
	missed []event
	list   []byte // an event; nil: the client knows everything but missed
}

// join adds a stream that goes on behind the change with the id lastID, where that is known.
func (h *hub) join(ctx context.Context, lastID string) (j joined, err error) {
	if h.watchers() == 0 { // so nobody was looking
		if err := h.lend(ctx, func(r *registry.Registry) error { return h.look(ctx, r) }); err != nil {
			return joined{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || len(h.streams) >= maxWatchers {
		return joined{}, errBusy
	}
	after, ok := h.known(lastID)
	if !ok {
		if j.list, err = h.encode(); err != nil {
			return joined{}, err
		}
	} else {
		for _, e := range h.recent {
			if e.number > after {
				j.missed = append(j.missed, e)
			}
		}
	}
	j.stream = &stream{events: make(chan event, queued)}
	h.streams[j.stream] = true
	return j, nil
}

// encode returns the event with all nodes. Streams that begin at the same state share it. The
// caller holds mu.
func (h *hub) encode() ([]byte, error) {
	if h.encoded == nil {
		text, err := eventText(h.instance, "list", h.number, map[string][]registry.Node{"nodes": append([]registry.Node{}, h.nodes.Nodes()...)})
		if err != nil {
			return nil, err
		}
		h.encoded = text
	}
	return h.encoded, nil
}

// known returns the number of an id, if every change behind it is kept.
func (h *hub) known(id string) (number int64, ok bool) {
	instance, text, _ := strings.Cut(id, "-")
	number, err := strconv.ParseInt(text, 10, 64)
	first := h.number + 1
	if len(h.recent) > 0 {
		first = h.recent[0].number
	}
	return number, err == nil && instance == h.instance && number >= first-1 && number <= h.number
}

func (h *hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[s] {
		delete(h.streams, s)
		close(s.events)
	}
}

// stop ends all streams.
func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for s := range h.streams {
		delete(h.streams, s)
		close(s.events)
	}
}

func (h *hub) watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// changeJSON is a change of a node: before is null where it was added, after where it was
// removed.
type changeJSON struct {
	Name   string         `json:"node_name"`
	Before *registry.Node `json:"before"`
	After  *registry.Node `json:"after"`
}

// watchNodes sends changes as server-sent events, until the client leaves. A client that
// comes back with Last-Event-ID gets what it missed, or where that is too long ago an event
// "list" with all nodes.
func (s *Server) watchNodes(w http.ResponseWriter, r *http.Request) {
	j, err := s.watch.join(r.Context(), r.Header.Get("Last-Event-ID"))
	if err != nil {
		s.fail(w, err)
		return
	}
	defer s.watch.leave(j.stream)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := eventWriter{w: w, control: http.NewResponseController(w), instance: s.watch.instance}
	out.control.SetReadDeadline(time.Time{}) // the request was read
	err = out.control.Flush()                // the client knows that it watches, also where nothing happens
	if err == nil && j.list != nil {
		err = out.write(j.list)
	}
	for _, e := range j.missed {
		if err == nil {
			err = out.change(e)
		}
	}
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	for err == nil {
		select {
		case e, ok := <-j.stream.events:
			if !ok {
				return // too slow, or the server ends
			}
			err = out.change(e)
		case <-ping.C:
			err = out.write([]byte(": ping\n\n"))
		case <-r.Context().Done():
			return
		}
	}
}

// eventWriter writes server-sent events.
type eventWriter struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	instance string
}

func (o eventWriter) change(e event) error {
	text, err := eventText(o.instance, "node", e.number, changeJSON{e.change.Name, e.change.Before, e.change.After})
	if err != nil {
		return err
	}
	return o.write(text)
}

func (o eventWriter) write(text []byte) error {
	if err := o.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := o.w.Write(text); err != nil {
		return err
	}
	return o.control.Flush()
}

// eventText is a server-sent event.
func eventText(instance, name string, number int64, v any) ([]byte, error) {
	data, err := wire.Marshal(v) // one line
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "id: %s-%d\nevent: %s\ndata: %s\n\n", instance, number, name, data), nil
}
