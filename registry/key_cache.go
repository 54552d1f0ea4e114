package registry

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// KeyCache keeps parsed private keys in memory between signatures: parsing an RSA key takes
// longer than a signature. A key signs only while the row of the vault is the one that it was
// read from, which each signature's transaction compares. A key is dropped after its lifetime,
// when the vault is closed, and by Forget. The zero value is ready. It is safe for concurrent
// use.
type KeyCache struct {
	// Lifetime is how long a key is kept, counted from when it was unsealed, not from its last
	// use. Default: a minute.
	Lifetime time.Duration

	mu    sync.Mutex // guards what follows
	vault *vault.Vault
	keys  map[string]*cachedKey // by fingerprint
}

// cachedKey is a private key of a row.
type cachedKey struct {
	sealed []byte // as the row has it
	signer func() (ssh.Signer, error)
	expiry *time.Timer
}

func (c *KeyCache) lifetime() time.Duration {
	if c.Lifetime > 0 {
		return c.Lifetime
	}
	return time.Minute
}

// Forget drops all keys. Signatures that are being made are not interrupted.
func (c *KeyCache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
}

// Len returns how many keys are kept.
func (c *KeyCache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

func (c *KeyCache) forget() {
	for _, k := range c.keys {
		k.expiry.Stop()
	}
	c.keys = nil
}

// signer returns the private key of a row, to be parsed outside the transaction. The caller
// calls it: what it is parsed from is wiped then.
func (c *KeyCache) signer(ctx context.Context, v *vault.Vault, tx *vault.Tx, fingerprint string, sealed []byte) (func() (ssh.Signer, error), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vault != v {
		c.forget()
		c.vault = v
		v.OnClose(c.Forget)
	}
	if k := c.keys[fingerprint]; k != nil {
		if bytes.Equal(k.sealed, sealed) {
			return k.signer, nil
		}
		k.expiry.Stop()
		delete(c.keys, fingerprint)
	}
	private, err := tx.Unseal(ctx, vault.SealedSSHKey, fingerprint, sealed)
	if err != nil {
		return nil, err
	}
	k := &cachedKey{sealed: sealed, signer: sync.OnceValues(func() (ssh.Signer, error) { return parseSigner(fingerprint, private) })}
	k.expiry = time.AfterFunc(c.lifetime(), func() { c.expire(fingerprint, k) })
	if c.keys == nil {
		c.keys = map[string]*cachedKey{}
	}
	c.keys[fingerprint] = k
	return k.signer, nil
}

func (c *KeyCache) expire(fingerprint string, k *cachedKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys[fingerprint] == k {
		delete(c.keys, fingerprint)
	}
}

// parseSigner parses a private key, which it wipes.
func parseSigner(fingerprint string, private []byte) (ssh.Signer, error) {
	defer clear(private)
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("%w: SSH key %q is not a private key", ErrBadRow, fingerprint)
	}
	return signer, nil
}
