package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// unlockTimeout is longer than the agent waits after a wrong passphrase.
const unlockTimeout = time.Minute

type agentLockOptions struct {
	socketOptions
	lockPassphraseFile string
}

func (o *agentLockOptions) register(cmd *cobra.Command) {
	o.socketOptions.register(cmd)
	cmd.Flags().StringVar(&o.lockPassphraseFile, "lock-passphrase-file", "", "read the passphrase that unlocks it from the only line of `FILE`, '-' or 'fd:N'")
}

func newAgentLock(a *app) *cobra.Command {
	var o agentLockOptions
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Lock the agent until it is unlocked with a passphrase",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runAgentLock(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAgentLock(ctx context.Context, a *app, o agentLockOptions) error {
	socket, err := o.path()
	if err != nil {
		return err
	}
	passphrase, err := a.newLockPassphrase(ctx, o.lockPassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	err = callAgent(ctx, socket, unlockTimeout, func(c sshagent.ExtendedAgent) error {
		if err := c.Lock(passphrase); err != nil {
			return fmt.Errorf("lock the agent: %w: is it locked already?", err)
		}
		return nil
	})
	if err == nil {
		a.ui.info("The agent is locked. To unlock it: rbee-vault agent unlock")
	}
	return err
}

func newAgentUnlock(a *app) *cobra.Command {
	var o agentLockOptions
	cmd := &cobra.Command{
		Use:   "unlock",
		Short: "Unlock the agent",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runAgentUnlock(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runAgentUnlock(ctx context.Context, a *app, o agentLockOptions) error {
	socket, err := o.path()
	if err != nil {
		return err
	}
	passphrase, err := a.lockPassphrase(ctx, o.lockPassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	err = callAgent(ctx, socket, unlockTimeout, func(c sshagent.ExtendedAgent) error {
		if err := c.Unlock(passphrase); err != nil {
			return fmt.Errorf("unlock the agent: %w: the passphrase is wrong, or the agent is not locked", err)
		}
		return nil
	})
	if err == nil {
		a.ui.info("The agent is unlocked.")
	}
	return err
}

// lockPassphrase reads the passphrase of the agent's lock from a file, or prompts for it.
func (a *app) lockPassphrase(ctx context.Context, file string) ([]byte, error) {
	if err := a.needLockPassphrase(file); err != nil {
		return nil, err
	}
	if file != "" {
		return a.readPassphrase(ctx, file)
	}
	return a.ui.askSecret(ctx, "Passphrase of the agent: ")
}

// newLockPassphrase reads a new one from a file, or prompts for it twice.
func (a *app) newLockPassphrase(ctx context.Context, file string) ([]byte, error) {
	if err := a.needLockPassphrase(file); err != nil {
		return nil, err
	}
	return a.newPassphrase(ctx, file, func([]byte) error { return nil })
}

func (a *app) needLockPassphrase(file string) error {
	if file != "" || a.interactive() {
		return nil
	}
	return fmt.Errorf("%w for a passphrase, so --lock-passphrase-file FILE is needed", errNeedsFlag)
}
