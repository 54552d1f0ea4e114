package vault

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
	"github.com/rbee-keeper/rbee-vault/internal/trace"
)

// Open opens the vault at cfg.Path. It gets the key from the first source that is present. It
// migrates an older schema, after it has set a copy aside. It settles what an interrupted
// transition left behind.
//
// Errors: [ErrNoVault], [ErrMissing], [ErrPlaintext], [ErrInsecure], [ErrAlreadyOpen],
// [ErrLocked], [ErrNoUnlockMethod], [ErrWrongKey], an error of package keyring, [ErrUnknownKeyID],
// [ErrDamaged], [ErrRollback], [ErrNewer], and those of the signer: [ErrOtherVault],
// [ErrForeignSigner], [ErrSuccessor], [ErrUnvouched]. After any of them the vault is unchanged,
// except that it may have been migrated. The caller closes the vault.
func Open(ctx context.Context, cfg Config) (*Vault, error) {
	defer trace.Step(ctx, "open", "path", cfg.Path)()
	p, err := newPaths(cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := mustExist(p); err != nil {
		return nil, err
	}
	if err := p.checkPrivate(); err != nil {
		return nil, err
	}
	if err := p.checkPlace(cfg); err != nil {
		return nil, err
	}
	lock := durable.NewLock(p.lock)
	cfg.accepted = new(string)
	for {
		if err := take(ctx, cfg, lock, lock.Shared); err != nil {
			return nil, err
		}
		v, r, err := openUnder(ctx, cfg, p, nil)
		if err == nil && r.version == cfg.schemaVersion() {
			if err = v.settleIfNeeded(ctx, r); err == nil {
				v.lock = lock
				v.storeVouch(ctx)
				return v, nil
			}
		}
		var known unlocked // so that no source is asked again under the exclusive lock
		if v != nil {
			key := *v.key
			known = unlocked{key: &key, source: v.source, opener: v.opener}
			defer key.Wipe()
			v.Close()
		}
		lock.Unlock()
		if err != nil {
			return nil, err
		}
		if p.setAside() {
			return nil, fmt.Errorf("%w: its schema %d is older than this program's %d; put it in place to use it", ErrReadOnly, r.version, cfg.schemaVersion())
		}
		release, err := takeAlone(ctx, cfg, p)
		if err != nil {
			return nil, err
		}
		err = upgrade(ctx, cfg, p, &known)
		release()
		if err != nil {
			return nil, err
		}
	}
}
