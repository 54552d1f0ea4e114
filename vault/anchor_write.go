package vault

import (
	"context"
	"os"
	"time"

	"github.com/rbee-keeper/rbee-vault/keyring"
)

// anchorDue reports whether the anchor is behind and this handle may write it.
func (v *Vault) anchorDue() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.anchorProgress.due() && !v.closed
}

// followAnchor writes the anchor if it is urgent. If not, it starts the timer that writes it
// later. The caller holds the gate and does not hold the write lock.
func (v *Vault) followAnchor(ctx context.Context) {
	if !v.anchorDue() {
		return
	}
	v.mu.Lock()
	urgent, wait := v.anchorProgress.urgent, anchorShortWait
	if v.anchorProgress.changedHere {
		wait = anchorWait
	}
	if !urgent && v.anchorProgress.changedHere && v.anchorProgress.timer == nil {
		v.anchorProgress.timer = time.AfterFunc(v.cfg.anchorDelay(), v.writeAnchorAfterDelay)
	}
	v.mu.Unlock()
	if urgent {
		v.writeAnchor(context.WithoutCancel(ctx), wait)
	}
}

// writeAnchorAfterDelay is called by the timer. It never prompts.
func (v *Vault) writeAnchorAfterDelay() {
	v.mu.Lock()
	v.anchorProgress.timer = nil
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(keyring.WithoutPrompt(context.Background()), anchorWait)
	defer cancel()
	if v.enter(ctx) != nil {
		return // a rotation or Close is running; each writes the anchor itself
	}
	defer v.leave()
	v.writeAnchor(ctx, anchorWait)
}

// writeAnchor writes the anchor if it is behind and this handle may write it. A failure is only
// logged, and only once: the change itself is already committed.
func (v *Vault) writeAnchor(ctx context.Context, wait time.Duration) {
	if !v.anchorDue() || v.cfg.now().Before(v.anchorRetry()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := v.anchorLock.Exclusive(ctx); err != nil {
		return // the holder of the lock writes the same state, or a later one
	}
	defer v.anchorLock.Unlock()
	v.mu.Lock()
	marks := v.anchorProgress.marks
	v.mu.Unlock()
	var m Meta
	var now anchor
	err := v.view(ctx, func(tx *Tx) (err error) {
		m, now, err = tx.anchor(ctx)
		return err
	})
	retry := v.cfg.now()
	if err == nil {
		account := anchorAccount(now.vaultID)
		if m.Keyring {
			err = v.cfg.Keyring.Set(ctx, account, now.String())
		} else {
			// Another process removed the keyring as an unlock method. Or the operator accepted
			// an older copy of the database, from before the keyring was one. If the anchor of
			// that other history stayed, it would later refuse the vault.
			err = v.cfg.Keyring.Delete(ctx, account)
		}
		if err != nil {
			retry = retry.Add(anchorBackOff)
		}
		os.Chtimes(v.paths.anchor, retry, retry) // best effort: see anchorRetry
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.anchorProgress.missing, v.anchorProgress.urgent = false, false
		v.anchorProgress.behind = v.anchorProgress.marks != marks
		return
	}
	if !v.anchorProgress.warned {
		v.anchorProgress.warned = true
		v.cfg.log().Warn("the keyring's anchor could not be written: until it is, an older copy of the database may not be noticed", "error", err)
	}
}

// anchorRetry returns when to write the anchor again after the keyring refused it.
func (v *Vault) anchorRetry() time.Time {
	info, err := os.Stat(v.paths.anchor)
	if err != nil || info.ModTime().After(v.cfg.now().Add(anchorBackOff)) { // the clock was set back
		return time.Time{}
	}
	return info.ModTime()
}

// stopAnchor stops the timer. The caller holds the whole gate.
func (v *Vault) stopAnchor() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.anchorProgress.timer != nil {
		v.anchorProgress.timer.Stop()
		v.anchorProgress.timer = nil
	}
}
