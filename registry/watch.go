package registry

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Change is a change of a node.
type Change struct {
	Name   string
	Before *Node // nil: the node was added
	After  *Node // nil: the node was removed
}

// watchInterval is the time between two looks.
const watchInterval = time.Second

// Watch yields the changes of nodes from now on, by any process, until ctx ends. It
// yields the error of ctx, or of a read, as the last element.
//
// It looks once a second and yields the difference since the last look. So a node that
// was added and removed in between is not reported, and a renamed node is reported as
// removed and added. A look costs very little while nothing has changed. Watch writes
// nothing.
//
//	for change, err := range r.Watch(ctx) { ... }
func (r *Registry) Watch(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		fail := func(err error) { yield(Change{}, fmt.Errorf("watch nodes: %w", err)) }
		revision, err := r.v.Revision(ctx)
		var before Snapshot
		if err == nil {
			before, err = r.Snapshot(ctx)
		}
		if err != nil {
			fail(err)
			return
		}
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				fail(ctx.Err())
				return
			case <-tick.C:
			}
			now, err := r.v.Revision(ctx)
			if err == nil && now == revision {
				continue
			}
			var after Snapshot
			if err == nil {
				after, err = r.Snapshot(ctx)
			}
			if err != nil {
				fail(err)
				return
			}
			for c := range after.Since(before) {
				if !yield(c, nil) {
					return
				}
			}
			before, revision = after, now
		}
	}
}

// clone returns a copy that shares no memory with c: a caller may change it, and the
// next comparison must not see that.
func (c Change) clone() Change {
	if c.Before != nil {
		n := c.Before.clone()
		c.Before = &n
	}
	if c.After != nil {
		n := c.After.clone()
		c.After = &n
	}
	return c
}
