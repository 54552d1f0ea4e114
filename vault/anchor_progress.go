package vault

import "time"

// anchorProgress is what a handle knows about the anchor. The handle guards it by a mutex.
type anchorProgress struct {
	compared    bool  // the handle has compared it and may write it, unless rollback is set
	rollback    error // the database is older than the anchor
	behind      bool  // it must be written: there is none, or the audit log is ahead of it
	missing     bool  // there was none
	changedHere bool  // this handle extended the audit log
	urgent      bool  // it must be written at once
	marks       int   // counts the changes that the anchor must cover
	warned      bool  // the failure to write it was logged
	timer       *time.Timer
}

// mark notes how soon the anchor must follow what was audited.
func (p *anchorProgress) mark(audited urgency) {
	if audited == urgencyNone {
		return
	}
	p.behind, p.changedHere = true, true
	p.urgent = p.urgent || audited == urgencyNow
	p.marks++
}

// markCheckpoint makes the anchor follow a checkpoint.
func (p *anchorProgress) markCheckpoint() { p.urgent = p.behind && p.changedHere }

// accept makes the anchor follow the database after the operator accepted a rollback.
func (p *anchorProgress) accept() {
	p.rollback = nil
	p.mark(urgencyNow)
}

// due reports whether the anchor is behind and the handle may write it.
func (p *anchorProgress) due() bool { return p.compared && p.rollback == nil && p.behind }
