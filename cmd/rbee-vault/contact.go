package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

// contactOptions are the flags that decide about the host key of a first contact.
type contactOptions struct {
	pins      []string // fingerprints that may be pinned
	acceptNew bool
}

func (o *contactOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.pins, "pin", nil, "at first contact, pin the host key with this `FINGERPRINT`; repeatable")
	f.BoolVar(&o.acceptNew, "accept-new", false, "at first contact, pin any host key without a comparison")
}

func (o contactOptions) check() error {
	for _, fingerprint := range o.pins {
		if _, err := checkFingerprint(fingerprint); err != nil {
			return fmt.Errorf("--pin: %w", err)
		}
	}
	return nil
}

// accept decides whether the host key that at presented, on the way to node, is pinned. --yes
// does not answer the question: nothing vouches for the key.
func (o contactOptions) accept(ctx context.Context, a *app, node, at string, key ssh.PublicKey) (bool, error) {
	fingerprint := ssh.FingerprintSHA256(key)
	switch {
	case o.acceptNew:
		return true, nil
	case len(o.pins) > 0:
		return slices.Contains(o.pins, fingerprint), nil
	case !a.interactive() || a.json:
		return false, nil
	}
	way := ""
	if at != node {
		way = ", on the way to " + node
	}
	a.ui.say(`
First contact with %s%s. It presents this host key, for which nothing vouches yet:

    %s %s

On the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`, at, way, key.Type(), fingerprint)
	return a.ui.askYes(ctx, "Is it the same key, and shall it be pinned?")
}
