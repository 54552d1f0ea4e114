package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/registry"
)

// proveOptions are the flags by which a new node is logged in to before it is stored.
type proveOptions struct {
	contactOptions
	check    bool // by the access that it will have
	install  bool // by the access that the operator has, and then its key is let in
	password bool
	timeout  time.Duration
}

func (o *proveOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.check, "check", false, "log in to the node first, and add it only if it is online")
	f.BoolVar(&o.install, "install", false, "log in with your own access first, add the node, and let its key in there")
	f.BoolVar(&o.password, "password", false, "with --install: log in with a password, which is asked for once")
	f.DurationVar(&o.timeout, "timeout", hive.DefaultTimeout, "with --check or --install: how long a login may take")
	o.contactOptions.register(cmd)
}

// validate returns a usage error for flags that do not go together. keyed: the node has a key
// of the vault; generated: a new one.
func (o proveOptions) validate(keyed, generated bool) error {
	if err := o.contactOptions.check(); err != nil {
		return err
	}
	switch {
	case o.install && !keyed:
		return usagef("--install lets a key of the vault in: give --generate-key, --import-key or --use-key")
	case o.check && generated && !o.install:
		return usagef("the node does not know the new key yet: give --install instead of --check")
	case o.check && o.install:
		return usagef("--install logs in by itself: leave --check out")
	case o.password && !o.install:
		return usagef("--password needs --install")
	case (len(o.pins) > 0 || o.acceptNew) && !o.check && !o.install:
		return usagef("--pin and --accept-new need --check or --install")
	case o.timeout <= 0 && (o.check || o.install):
		return usagef("--timeout must be more than 0")
	}
	return nil
}

// proven is a node that was logged in to.
type proven struct {
	at       time.Time
	hostKeys []ssh.PublicKey // to be pinned
}

// prove logs in to a node that is not stored yet. signer is that of its key. in has the
// operator's own access, for --install.
func (o proveOptions) prove(ctx context.Context, a *app, r *registry.Registry, n registry.Node, signer ssh.Signer, in *installer) (*proven, error) {
	if !o.check && !o.install {
		return nil, nil
	}
	if _, err := r.GetNode(ctx, n.Name); err == nil {
		return nil, fmt.Errorf("add node %q: %w", n.Name, registry.ErrExists)
	} else if !errors.Is(err, registry.ErrNotFound) {
		return nil, err
	}
	draft := &hive.Draft{Node: n, Signer: signer}
	d := &hive.Dialer{Registry: r, Timeout: o.timeout, Draft: draft}
	err := o.logIn(ctx, d, n.Name, in)
	var unknown *hive.HostKeyError
	if errors.Is(err, hive.ErrHostKeyUnknown) && errors.As(err, &unknown) && failedAt(err, n.Name) == n.Name {
		yes, failed := o.accept(ctx, a, n.Name, n.Name, unknown.Key)
		if failed != nil {
			return nil, failed
		}
		if yes {
			draft.HostKeys = []ssh.PublicKey{unknown.Key}
			err = o.logIn(ctx, d, n.Name, in)
		}
	}
	if err != nil {
		return nil, o.notAdded(ctx, r, n.Name, err)
	}
	return &proven{a.now(), draft.HostKeys}, nil
}

func (o proveOptions) logIn(ctx context.Context, d *hive.Dialer, name string, in *installer) error {
	if !o.install {
		result, err := d.Probe(ctx, name)
		return errors.Join(err, result.Err)
	}
	conn, err := d.DialBy(ctx, name, in.access)
	if err != nil {
		return err
	}
	return conn.Close()
}

// failedAt returns the node that a login failed at: name, or one that it is reached through.
func failedAt(err error, name string) string {
	if at, ok := errors.AsType[*hive.Error](err); ok {
		return at.Node
	}
	return name
}

// notAdded explains why a node was not added, with the next step.
func (o proveOptions) notAdded(ctx context.Context, r *registry.Registry, name string, err error) error {
	at := failedAt(err, name)
	outcome, ok := hive.OutcomeOf(err)
	failed := fmt.Errorf("%s is not added: %w", name, err)
	switch next := hint(err, ""); {
	case next != "":
		return withHint(failed, "%s", next)
	case !ok:
		return failed
	case outcome == hive.HostKeyUnknown && at == name:
		unknown, _ := errors.AsType[*hive.HostKeyError](err)
		return withHint(failed, "Compare it with the key on the machine itself (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub). If it is the same: --pin %s", ssh.FingerprintSHA256(unknown.Key))
	case outcome == hive.PermissionDeny && at == name && !o.install:
		return withHint(failed, "Is its key in the user's authorized_keys on the machine? To put it there by the access that you have: --install")
	case at == name:
		return withHint(failed, "Correct the address, the port or the user. To add it as it is, leave out --check.")
	}
	pinned, listErr := r.ListHostKeys(ctx, at)
	if listErr != nil {
		return failed
	}
	var key ssh.PublicKey
	if bad, ok := errors.AsType[*hive.HostKeyError](err); ok {
		key = bad.Key
	}
	return withHint(failed, "%s", fillHint(outcomeHints[outcome], at, key, pinned))
}

// finish stores what the login showed, and lets the node's key in.
func (o proveOptions) finish(ctx context.Context, a *app, r *registry.Registry, n registry.Node, p *proven, in *installer) error {
	if p == nil {
		return nil
	}
	if len(p.hostKeys) > 0 {
		if _, err := r.TrustHostKeys(ctx, map[string][]ssh.PublicKey{n.Name: p.hostKeys}); err != nil {
			return err
		}
		a.ui.info("%s: %s %s is pinned", n.Name, p.hostKeys[0].Type(), ssh.FingerprintSHA256(p.hostKeys[0]))
	}
	if o.install {
		in.registry, in.dialer = r, &hive.Dialer{Registry: r, Timeout: o.timeout}
		if _, err := in.install(ctx, n); err != nil {
			again := "rbee-vault ssh-key install " + n.Name
			if o.password {
				again += " --password"
			}
			next := hint(err, "")
			if next != "" {
				next += "\n"
			}
			return withHint(fmt.Errorf("%w: the node and its key are stored, but the node does not let the key in: %w", errPartial, err), "%sAgain: %s", next, again)
		}
		a.ui.info("%s accepts its key.", n.Name)
	}
	_, err := r.UpdateStates(ctx, []registry.State{{Node: n.Name, Status: registry.StatusOnline, LastConnected: p.at}})
	return err
}
