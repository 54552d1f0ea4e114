package registry

import "sync"

// lastStatuses has the status that this Registry stored last for each node. It is only a hint:
// another handle may have stored another status since. Where it differs from the wanted status,
// a read before the write would be in vain. That read costs as much as the write: after each
// commit, all its pages are decrypted again.
type lastStatuses struct {
	mu    sync.Mutex
	known map[string]Status // at most maxCached
}

// differs reports whether another status was stored last. It is false for an unknown node.
func (l *lastStatuses) differs(name string, status Status) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.known[name]
	return ok && last != status
}

// set records what is stored.
func (l *lastStatuses) set(name string, status Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || len(l.known) >= maxCached {
		l.known = map[string]Status{}
	}
	l.known[name] = status
}
