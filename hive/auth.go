package hive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// authentication returns how to log in to a node: by its key in the vault, else by the
// file that its path names, else by the operator's agent. Without any it is [ErrNoKey].
func (d *Dialer) authentication(ctx context.Context, node registry.Node) ([]ssh.AuthMethod, error) {
	signer, err := d.signer(ctx, node.Name)
	switch {
	case err == nil:
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	case !errors.Is(err, registry.ErrNotFound):
		return nil, err
	case node.SSHKeyPath != "":
		signer, err := ReadKeyFile(node.SSHKeyPath)
		if err != nil {
			return nil, err
		}
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	case d.Agent != nil:
		return []ssh.AuthMethod{ssh.PublicKeysCallback(d.Agent.Signers)}, nil
	}
	return nil, fmt.Errorf("%w: the vault has none for it, and it names no file", ErrNoKey)
}

// ReadKeyFile reads a private key without a passphrase. Every error is [ErrNoKey].
func ReadKeyFile(path string) (ssh.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, registry.MaxPEM+1))
	defer clear(data)
	if err == nil && len(data) > registry.MaxPEM {
		err = fmt.Errorf("%q is too large for a private key", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if errors.As(err, new(*ssh.PassphraseMissingError)) {
		return nil, fmt.Errorf("%w: %q is under a passphrase", ErrNoKey, path)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %q is not a private key", ErrNoKey, path)
	}
	return signer, nil
}

// signerCache has the signers that the audit log knows of, so that a Dialer which logs in
// again and again writes one row for each key. The zero value is empty.
type signerCache struct {
	mu     sync.Mutex
	byNode map[string]cachedSigner
}

type cachedSigner struct {
	fingerprint string
	signer      ssh.Signer
}

// signer returns the signer of the node's key in the vault, or [registry.ErrNotFound]. The
// audit row is committed before it signs.
func (d *Dialer) signer(ctx context.Context, node string) (ssh.Signer, error) {
	if draft := d.draft(node); draft != nil {
		if draft.Signer == nil {
			return nil, registry.ErrNotFound
		}
		return draft.Signer, nil
	}
	key, err := d.Registry.NodeSSHKey(ctx, node)
	if err != nil {
		return nil, err
	}
	d.signers.mu.Lock()
	known := d.signers.byNode[node]
	d.signers.mu.Unlock()
	if known.fingerprint == key.Fingerprint {
		return known.signer, nil
	}
	signer, err := d.Registry.Signer(ctx, node)
	if err != nil {
		return nil, err
	}
	d.signers.mu.Lock()
	defer d.signers.mu.Unlock()
	if d.signers.byNode == nil {
		d.signers.byNode = map[string]cachedSigner{}
	}
	d.signers.byNode[node] = cachedSigner{key.Fingerprint, signer}
	return signer, nil
}
