package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maruel/natural"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// fleet is what the page shows of the vault.
type fleet struct {
	nodes  []fleetNode // by name, n2 before n10
	health backup.Health
}

// fleetNode is a node on the page.
type fleetNode struct {
	registry.Node
	key  bool   // the vault has an SSH key for it
	pins int    // host keys that are pinned
	text string // what the filter looks at, in small letters
}

// pageReader reads the vault for the page. Its methods may be called at once.
type pageReader interface {
	// look returns the fleet, nil if it is as at the last look.
	look(ctx context.Context) (*fleet, error)
	// node returns all fields of a node.
	node(ctx context.Context, name string) ([]section, error)
	// release closes the vault. Until resume nothing opens it again, and look returns nil.
	release() error
	resume()
}

var _ pageReader = (*vaultReader)(nil)

// fleetAge is when a fleet is read again though the vault is the same: a backup may have gone
// from its place.
const fleetAge = time.Minute

// vaultReader reads the vault by a session, which gives way to a rotation.
type vaultReader struct {
	app  *app
	open func(context.Context) (*vault.Vault, error)

	mu       sync.Mutex // guards what follows; held while the vault is opened
	session  *registry.Session
	released bool

	looking sync.Mutex         // guards what follows; held by a look
	of      *registry.Registry // that seen is of: revisions of two handles cannot be compared
	seen    vault.Revision
	read    time.Time
}

// begin opens the vault for the first time, and may ask for what it needs.
func (r *vaultReader) begin(ctx context.Context) error {
	_, err := r.opened(ctx)
	return err
}

// opened returns the session, nil where the vault is released.
func (r *vaultReader) opened(ctx context.Context) (*registry.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != nil || r.released {
		return r.session, nil
	}
	s, err := registry.NewSession(ctx, r.open)
	if err == nil {
		r.session = s
	}
	return s, err
}

func (r *vaultReader) release() error {
	r.mu.Lock()
	s := r.session
	r.session, r.released = nil, true
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close()
}

func (r *vaultReader) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = false
}

// use runs fn with the registry, or not at all where the vault is released.
func (r *vaultReader) use(ctx context.Context, fn func(*registry.Registry) error) error {
	s, err := r.opened(ctx)
	if err != nil || s == nil {
		return err
	}
	if err = s.Use(ctx, fn); errors.Is(err, vault.ErrClosed) {
		return nil // released in between
	}
	return err
}

func (r *vaultReader) look(ctx context.Context) (f *fleet, err error) {
	r.looking.Lock()
	defer r.looking.Unlock()
	err = r.use(ctx, func(open *registry.Registry) error {
		// Taken before the reads: what changes behind it is seen by the next look.
		revision, err := open.Vault().Revision(ctx)
		now := r.app.now()
		if err != nil || open == r.of && revision == r.seen && now.Sub(r.read).Abs() < fleetAge {
			return err
		}
		if f, err = readFleet(ctx, r.app, open); err == nil {
			r.of, r.seen, r.read = open, revision, now
		}
		return err
	})
	return f, err
}

// readFleet reads all that the page shows. The targets of backups are not asked.
func readFleet(ctx context.Context, a *app, r *registry.Registry) (*fleet, error) {
	nodes, err := r.ListNodes(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := readFingerprints(ctx, r)
	if err != nil {
		return nil, err
	}
	f := &fleet{}
	if f.health, err = a.backupHealth(ctx, r.Vault(), backup.HealthOptions{Offline: true}); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		k := keys[n.Name]
		f.nodes = append(f.nodes, fleetNode{n, k.sshKey != nil, len(k.hostKeys), filterText(n)})
	}
	slices.SortFunc(f.nodes, func(a, b fleetNode) int { return natural.Compare(a.Name, b.Name) })
	return f, nil
}

// filterText is what the filter looks at.
func filterText(n registry.Node) string {
	return strings.ToLower(strings.Join([]string{n.Name, n.SSHHost, n.SSHUser, string(n.Status), registry.FormatLabels(n.Labels), backendsText(n), n.ProxyJump, n.Note}, "\n"))
}

// matches reports whether every word of a filter, in small letters, is in the node's fields.
func (n fleetNode) matches(words []string) bool {
	for _, w := range words {
		if !strings.Contains(n.text, w) {
			return false
		}
	}
	return true
}

// counts says how many nodes there are, and in which status.
func (f *fleet) counts() string {
	text := fmt.Sprintf("%d nodes", len(f.nodes))
	if len(f.nodes) == 1 {
		text = "1 node"
	}
	number := map[registry.Status]int{}
	for _, n := range f.nodes {
		number[n.Status]++
	}
	separator := ": "
	for _, s := range []registry.Status{registry.StatusOnline, registry.StatusOffline, registry.StatusError, registry.StatusUnknown} {
		if number[s] > 0 {
			text += fmt.Sprintf("%s%d %s", separator, number[s], s)
			separator = ", "
		}
	}
	return text
}

func (r *vaultReader) node(ctx context.Context, name string) (sections []section, err error) {
	err = r.use(ctx, func(open *registry.Registry) error {
		n, err := open.GetNode(ctx, name)
		if err != nil {
			return err
		}
		k, err := keyOfNode(ctx, open, name)
		if err != nil {
			return err
		}
		pins, err := open.ListHostKeys(ctx, name)
		if err != nil {
			return err
		}
		sections = nodeSections(r.app.now(), n, k, pins)
		return nil
	})
	return sections, err
}
