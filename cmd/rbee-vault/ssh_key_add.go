package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

type keyAddOptions struct {
	nodes     []string
	comment   string
	allowWeak bool
}

func (o *keyAddOptions) register(cmd *cobra.Command) {
	usedByFlag(cmd, &o.nodes)
	commentFlag(cmd, &o.comment)
	cmd.Flags().BoolVar(&o.allowWeak, "allow-weak", false, "accept an RSA key of fewer than 3072 bits")
}

func usedByFlag(cmd *cobra.Command, nodes *[]string) {
	cmd.Flags().StringArrayVar(nodes, "node", nil, "let the node `NAME` use it; repeatable")
}

func commentFlag(cmd *cobra.Command, comment *string) {
	cmd.Flags().StringVar(comment, "comment", "", "comment of the key: `TEXT`")
}

func newSSHKeyAdd(a *app) *cobra.Command {
	var o keyAddOptions
	cmd := &cobra.Command{
		Use:   "add FILE",
		Short: "Seal a private key into the vault",
		Long: `Seal the private key in FILE ('-' standard input, 'fd:N' a descriptor) into the vault:
ed25519, RSA of 3072 bits or more, or ECDSA, in the format of OpenSSH or PEM. If the key
has a passphrase, you are asked for it. The passphrase is not kept: in the vault, the
vault protects the key.`,
		Example: `  rbee-vault ssh-key add ~/.ssh/id_ed25519 --node hive-01`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return runSSHKeyAdd(cmd.Context(), a, o, args[0]) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyAdd(ctx context.Context, a *app, o keyAddOptions, file string) error {
	k, err := a.readPrivateKey(ctx, file, registry.PrivateKeyOptions{AllowWeak: o.allowWeak, Comment: o.comment})
	if err != nil {
		return err
	}
	defer k.Wipe()
	var added registry.SSHKey
	err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		added, err = r.AddSSHKey(ctx, k, o.nodes...)
		return noneOf(ctx, r, o.nodes, err)
	})
	if errors.Is(err, registry.ErrExists) {
		return withHint(err, "The key is in the vault already. To let nodes use it: rbee-vault ssh-key assign %s NODE", k.Fingerprint())
	}
	if err != nil {
		return err
	}
	a.ui.info("The file %s still exists. Remove it after you have reached the nodes with the key in the vault.", file)
	return a.showAdded(added)
}

type keyGenerateOptions struct {
	kind    string
	comment string
	nodes   []string
}

func (o *keyGenerateOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.kind, "type", "ed25519", "`TYPE`: ed25519, or rsa (4096 bits)")
	commentFlag(cmd, &o.comment)
	usedByFlag(cmd, &o.nodes)
}

func newSSHKeyGenerate(a *app) *cobra.Command {
	var o keyGenerateOptions
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Generate a key inside the vault: the private key never exists outside",
		Example: `  rbee-vault ssh-key generate --node hive-01 --comment rbee@hive-01
  rbee-vault ssh-key show rbee@hive-01 | ssh ops@hive-01 'cat >>.ssh/authorized_keys'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSSHKeyGenerate(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyGenerate(ctx context.Context, a *app, o keyGenerateOptions) error {
	var added registry.SSHKey
	err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		added, err = r.GenerateSSHKey(ctx, o.kind, o.comment, o.nodes...)
		return noneOf(ctx, r, o.nodes, err)
	})
	if err != nil {
		return err
	}
	a.ui.info("To print its public key: rbee-vault ssh-key show %s", added.Fingerprint)
	return a.showAdded(added)
}

func (a *app) showAdded(k registry.SSHKey) error {
	if a.json {
		return a.ui.object(k)
	}
	a.ui.printf("%s\n", k.Fingerprint)
	return nil
}

// readPrivateKey reads a private key from a file, '-' or 'fd:N'.
func (a *app) readPrivateKey(ctx context.Context, source string, opts registry.PrivateKeyOptions) (*registry.PrivateKey, error) {
	if !isStream(source) {
		if err := checkRegular(source); err != nil {
			return nil, withHint(err, "To read a key from a pipe, give '-' or fd:N.")
		}
	}
	r, err := a.openSecret(ctx, source, "the SSH key")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := readInput(r, registry.MaxPEM)
	if err != nil {
		return nil, fmt.Errorf("read SSH key %q: %w", source, err)
	}
	defer clear(data)
	opts.Name = fmt.Sprintf("SSH key %q", source)
	asked := false
	opts.Passphrase = func(ctx context.Context, what string, attempt int) ([]byte, error) {
		asked = true
		return a.askPassphrase(ctx, what, attempt)
	}
	k, err := registry.ParsePrivateKey(ctx, data, opts)
	if errors.Is(err, registry.ErrWeakKey) {
		err = withHint(err, "Generate a better key: rbee-vault ssh-key generate. To accept this one: --allow-weak")
	}
	if err != nil {
		return nil, fmt.Errorf("SSH key %q: %w", source, err)
	}
	if asked {
		a.ui.info("Its passphrase is not kept: in the vault, the vault protects the key.")
	}
	return k, nil
}
