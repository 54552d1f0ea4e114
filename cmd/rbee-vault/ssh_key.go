package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newSSHKey(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh-key",
		Short: "SSH keys, sealed in the vault",
		Long: `SSH private keys live in the vault, sealed once more inside the encrypted database.
One key may serve many nodes; a node uses one. KEY is a fingerprint, its beginning
from six characters on, or the key's comment.`,
	}
	cmd.AddCommand(
		newSSHKeyAdd(a),
		newSSHKeyGenerate(a),
		newSSHKeyList(a),
		newSSHKeyShow(a),
		newSSHKeyExport(a),
		newSSHKeyAssign(a),
		newSSHKeyRemove(a),
	)
	return cmd
}

// maxKeyFile caps the file of a private key, in bytes.
const maxKeyFile = 64 << 10

// readPrivateKey reads a private key from a file, '-' or 'fd:N'.
func (a *app) readPrivateKey(ctx context.Context, source string, opts registry.PrivateKeyOptions) (*registry.PrivateKey, error) {
	if source != "-" && !strings.HasPrefix(source, "fd:") {
		if err := checkRegular(source); err != nil {
			return nil, withHint(err, "Give a key from a pipe as '-', or as fd:N.")
		}
	}
	r, err := a.openSecret(ctx, source, "the SSH key")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("read SSH key %q: %w", source, err)
	}
	opts.Name = fmt.Sprintf("SSH key %q", source)
	asked := false
	opts.Passphrase = func(ctx context.Context, what string, attempt int) ([]byte, error) {
		asked = true
		return a.askPassphrase(ctx, what, attempt)
	}
	k, err := registry.ParsePrivateKey(ctx, data, opts)
	if errors.Is(err, registry.ErrWeakKey) {
		err = withHint(err, "Make a better one: rbee-vault ssh-key generate. Or take it all the same: --allow-weak")
	}
	if err != nil {
		return nil, fmt.Errorf("SSH key %q: %w", source, err)
	}
	if asked {
		a.ui.info("Its passphrase is not kept: in the vault, the vault's protection replaces it.")
	}
	return k, nil
}

func newSSHKeyAdd(a *app) *cobra.Command {
	var o registry.PrivateKeyOptions
	var nodes []string
	cmd := &cobra.Command{
		Use:   "add FILE",
		Short: "Seal a private key into the vault",
		Long: `Seal the private key in FILE ('-' standard input, 'fd:N' a descriptor) into the vault:
ed25519, RSA of 3072 bits or more, or ECDSA, as OpenSSH or PEM. One under a
passphrase is asked for it; in the vault, the vault's protection replaces that.`,
		Example: `  rbee-vault ssh-key add ~/.ssh/id_ed25519 --node hive-01`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			k, err := a.readPrivateKey(ctx, args[0], o)
			if err != nil {
				return err
			}
			defer k.Wipe()
			var added registry.SSHKey
			err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
				added, err = r.AddSSHKey(ctx, k, nodes...)
				return err
			})
			if errors.Is(err, registry.ErrExists) {
				return withHint(err, "It is in the vault already. Have nodes use it: rbee-vault ssh-key assign %s NODE", k.Fingerprint())
			}
			if err != nil {
				return nodeHint(err)
			}
			a.ui.info("The file %s is still there: remove it when the nodes have been reached with the key from the vault.", args[0])
			return a.showAdded(added)
		},
	}
	cmd.Flags().StringArrayVar(&nodes, "node", nil, "have the node `NAME` use it; repeatable")
	cmd.Flags().BoolVar(&o.AllowWeak, "allow-weak", false, "take an RSA key of fewer than 3072 bits")
	cmd.Flags().StringVar(&o.Comment, "comment", "", "give it this `TEXT` for a comment")
	return cmd
}

func (a *app) showAdded(k registry.SSHKey) error {
	if a.json {
		return a.ui.object(k)
	}
	a.ui.printf("%s\n", k.Fingerprint)
	return nil
}

func newSSHKeyGenerate(a *app) *cobra.Command {
	var kind, comment string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make a key inside the vault: its private half never exists outside",
		Example: `  rbee-vault ssh-key generate --node hive-01 --comment rbee@hive-01
  rbee-vault ssh-key show rbee@hive-01 | ssh ops@hive-01 'cat >>.ssh/authorized_keys'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var added registry.SSHKey
			err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
				added, err = r.GenerateSSHKey(ctx, kind, comment, nodes...)
				return err
			})
			if err != nil {
				return nodeHint(err)
			}
			a.ui.info("Its public key: rbee-vault ssh-key show %s", added.Fingerprint)
			return a.showAdded(added)
		},
	}
	cmd.Flags().StringVar(&kind, "type", "ed25519", "`TYPE`: ed25519, or rsa (4096 bits)")
	cmd.Flags().StringVar(&comment, "comment", "", "give it this `TEXT` for a comment")
	cmd.Flags().StringArrayVar(&nodes, "node", nil, "have the node `NAME` use it; repeatable")
	return cmd
}

func newSSHKeyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys, and which nodes use them",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var keys []registry.SSHKey
			err := a.withRegistry(ctx, func(r *registry.Registry) (err error) {
				keys, err = r.ListSSHKeys(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return objects(a.ui, keys)
			}
			var rows [][]string
			for _, k := range keys {
				used := "never"
				if !k.Used.IsZero() {
					used = k.Used.Format("2006-01-02")
				}
				nodes := strings.Join(k.Nodes, ",")
				if nodes == "" {
					nodes = "-"
				}
				rows = append(rows, []string{k.Fingerprint, k.Type, k.Comment, k.Created.Format("2006-01-02"), used, nodes})
			}
			if len(keys) == 0 {
				a.ui.info("There are no SSH keys yet: rbee-vault ssh-key add FILE, or generate")
				return nil
			}
			a.ui.table([]string{"FINGERPRINT", "TYPE", "COMMENT", "CREATED", "USED", "NODES"}, rows, nil)
			return nil
		},
	}
}

// withSSHKey opens the registry, finds the key that is meant, and runs fn.
func (a *app) withSSHKey(ctx context.Context, name string, fn func(*registry.Registry, registry.SSHKey) error) error {
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		k, err := findSSHKey(ctx, r, name)
		if err != nil {
			return err
		}
		return fn(r, k)
	})
}

// findSSHKey finds a key by its fingerprint, the beginning of that, or its comment.
func findSSHKey(ctx context.Context, r *registry.Registry, name string) (registry.SSHKey, error) {
	keys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return registry.SSHKey{}, err
	}
	k, err := registry.FindSSHKey(keys, name)
	if errors.Is(err, registry.ErrNotFound) {
		err = withHint(err, "See which there are: rbee-vault ssh-key list")
	}
	return k, err
}

// keyName names an SSH key for a person.
func keyName(k registry.SSHKey) string { return strings.TrimSpace(k.Fingerprint + " " + k.Comment) }

func newSSHKeyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Print the public key, as a line of authorized_keys",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSSHKey(cmd.Context(), args[0], func(_ *registry.Registry, k registry.SSHKey) error {
				if a.json {
					return a.ui.object(k)
				}
				a.ui.printf("%s\n", strings.TrimSpace(k.PublicKey+" "+k.Comment))
				return nil
			})
		},
	}
}

type exportedJSON struct {
	Fingerprint string `json:"fingerprint"`
	Path        string `json:"path"`
}

func newSSHKeyExport(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export KEY -o FILE",
		Short: "Write a private key out of the vault",
		Long: `Write the private key, without a passphrase, to the new file FILE, mode 0600, or with
'-o -' into a pipe; never to a terminal. That it was done, or refused, is in the audit
log before a byte leaves. Programs that link the library need no export: they sign
with the key where it is.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("-o FILE is needed")
			}
			return a.withSSHKey(cmd.Context(), args[0], func(r *registry.Registry, k registry.SSHKey) error {
				return runSSHKeyExport(cmd.Context(), a, r, k, out)
			})
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to the new `FILE`, '-' for a pipe")
	return cmd
}

func runSSHKeyExport(ctx context.Context, a *app, r *registry.Registry, k registry.SSHKey, out string) error {
	to := out
	refuse := func(reason error) error {
		return errors.Join(reason, r.RefuseSSHKeyExport(context.WithoutCancel(ctx), k.Fingerprint, reason.Error()))
	}
	if out == "-" {
		if a.ui.pretty {
			return refuse(fmt.Errorf("%w: a private key is not shown on a terminal: send standard output to a pipe, or use -o FILE", vault.ErrInvalid))
		}
		if a.json {
			return refuse(fmt.Errorf("%w: --json and -o - both want standard output", vault.ErrInvalid))
		}
	} else {
		abs, err := filepath.Abs(out)
		if err != nil {
			return err
		}
		to = abs
		if _, err := os.Lstat(to); err == nil {
			return refuse(fmt.Errorf("%w: %q", vault.ErrFileExists, to))
		}
	}
	if err := a.ui.confirm(ctx, fmt.Sprintf("Write the private key %s to %s, without a passphrase?", k.Fingerprint, to)); err != nil {
		return refuse(err)
	}
	private, err := r.ExportSSHKey(ctx, k.Fingerprint, "to "+to)
	if err != nil {
		return err
	}
	defer clear(private)
	if out == "-" {
		_, err := a.ui.out.Write(private)
		return err
	}
	if err := vault.CreateFile(to, private); err != nil {
		return err
	}
	if a.json {
		return a.ui.object(exportedJSON{k.Fingerprint, to})
	}
	a.ui.printf("%s\n", to)
	return nil
}

type assignOptions struct {
	selectOptions
	none bool
}

func (o *assignOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().BoolVar(&o.none, "none", false, "take away what the nodes use")
}

func newSSHKeyAssign(a *app) *cobra.Command {
	var o assignOptions
	cmd := &cobra.Command{
		Use:   "assign KEY NODE|GLOB... | assign --none NODE|GLOB...",
		Short: "Have nodes use a key, in place of what they used",
		Args:  cobra.ArbitraryArgs,
		RunE:  func(cmd *cobra.Command, args []string) error { return runSSHKeyAssign(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runSSHKeyAssign(ctx context.Context, a *app, o assignOptions, args []string) error {
	key := ""
	if !o.none {
		if len(args) == 0 {
			return usagef("which key?")
		}
		key, args = args[0], args[1:]
	}
	selection, err := o.parseSome(args)
	if err != nil {
		return err
	}
	if o.none {
		return a.withRegistry(ctx, func(r *registry.Registry) error {
			return assignSSHKey(ctx, a, r, "", selection)
		})
	}
	return a.withSSHKey(ctx, key, func(r *registry.Registry, k registry.SSHKey) error {
		return assignSSHKey(ctx, a, r, k.Fingerprint, selection)
	})
}

// assignSSHKey has the selected nodes use a key, or none where the fingerprint is empty.
func assignSSHKey(ctx context.Context, a *app, r *registry.Registry, fingerprint string, selection nodeSelection) error {
	names, err := selection.names(ctx, a, r)
	if err != nil || len(names) == 0 {
		return err
	}
	if err := r.AssignSSHKey(ctx, fingerprint, names...); err != nil {
		return err
	}
	what := fingerprint
	if fingerprint == "" {
		what = "no key of the vault any more"
	}
	a.ui.info("%s: %s", strings.Join(names, ", "), what)
	return nil
}

func newSSHKeyRemove(a *app) *cobra.Command {
	var unassign bool
	cmd := &cobra.Command{
		Use:   "remove KEY",
		Short: "Remove a key from the vault",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withSSHKey(ctx, args[0], func(r *registry.Registry, k registry.SSHKey) error {
				if len(k.Nodes) > 0 && !unassign {
					return withHint(fmt.Errorf("SSH key %q: %w by %s", k.Fingerprint, registry.ErrInUse, strings.Join(k.Nodes, ", ")),
						"Have them use another: rbee-vault ssh-key assign KEY NODE. Or leave them without: --unassign")
				}
				if err := a.ui.confirm(ctx, fmt.Sprintf("Remove %s for good?", keyName(k))); err != nil {
					return err
				}
				if err := r.RemoveSSHKey(ctx, k.Fingerprint, unassign); err != nil {
					return err
				}
				a.ui.info("removed %s", k.Fingerprint)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&unassign, "unassign", false, "also where nodes use it: they are left without")
	return cmd
}
