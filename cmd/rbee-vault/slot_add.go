package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newSlotAdd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add a way in",
		Long: `Add a way into the vault. It takes any way in that is there already, and no other
secret. Backups made from then on can be read by the new recipient too.`,
	}
	cmd.AddCommand(newSlotAddRecipient(a), newSlotAddPassphrase(a), newSlotAddRecovery(a), newSlotAddKeyring(a), newSlotAddCredential(a))
	return cmd
}

// addSlot adds a slot to the open vault and says so.
func (a *app) addSlot(ctx context.Context, v *vault.Vault, n vault.NewSlot) error {
	s, err := v.AddSlot(ctx, n)
	if errors.Is(err, vault.ErrPlugin) {
		return withHint(err, "Nothing was changed. Every backup and rotation needs the plugin too: install it first.")
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(s)
	}
	a.ui.printf("%s\n", s.ID)
	a.ui.info("The vault opens by %s now.", slotText(s))
	return nil
}

func labelFlag(cmd *cobra.Command, label *string) {
	cmd.Flags().StringVar(label, "label", "", "call it `NAME`")
}

type recipientOptions struct {
	label string
}

func (o *recipientOptions) register(cmd *cobra.Command) { labelFlag(cmd, &o.label) }

func newSlotAddRecipient(a *app) *cobra.Command {
	var o recipientOptions
	cmd := &cobra.Command{
		Use:   "recipient KEY",
		Short: "Let the owner of a public key in: age1..., ssh-ed25519, ssh-rsa, or of an age plugin",
		Example: `  rbee-vault slot add recipient age1... --label "ops@example.org"
  rbee-vault slot add recipient "$(cat ~/.ssh/id_ed25519.pub)"
  rbee-vault slot add recipient age1yubikey1...`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSlotAddRecipient(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddRecipient(ctx context.Context, a *app, o recipientOptions, args []string) error {
	n := vault.NewSlot{Kind: vault.SlotRecipient, Label: o.label, Recipient: strings.Join(args, " ")}
	return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
}

type passphraseOptions struct {
	label      string
	file       string
	allowWeak  bool
	workFactor int
}

func (o *passphraseOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	labelFlag(cmd, &o.label)
	f.StringVar(&o.file, "passphrase-file", "", "take the new passphrase from the one line of `FILE`, '-', or 'fd:N'")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "take a passphrase that can be guessed")
	f.IntVar(&o.workFactor, "work-factor", identity.MinWorkFactor, fmt.Sprintf("let scrypt take 2^`N` steps for it, %d to %d", identity.MinWorkFactor, identity.MaxWorkFactor))
}

func newSlotAddPassphrase(a *app) *cobra.Command {
	var o passphraseOptions
	cmd := &cobra.Command{
		Use:   "passphrase",
		Short: "Let in who knows a passphrase",
		Long: `Add a passphrase. It is typed twice, or taken from the one line of a file.

Whoever has the slots file can try passphrases on it without end, each for as long
as scrypt takes: choose one of six random words or more. One that is estimated below
60 bits is refused, unless --allow-weak. It does not count as the recovery or
recipient slot that a vault must have, for it can be forgotten.

--passphrase-file here names the new passphrase. To open the vault by another one,
type that when it is asked for.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSlotAddPassphrase(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddPassphrase(ctx context.Context, a *app, o passphraseOptions) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		passphrase, err := a.newPassphrase(ctx, o.file)
		if err != nil {
			return err
		}
		defer clear(passphrase)
		if err := a.checkStrength(passphrase, o.allowWeak); err != nil {
			return err
		}
		return a.addSlot(ctx, v, vault.NewSlot{Kind: vault.SlotPassphrase, Label: o.label, Passphrase: passphrase, WorkFactor: o.workFactor})
	})
}

// checkStrength refuses a passphrase that can be guessed, or says what it costs.
func (a *app) checkStrength(passphrase []byte, allowWeak bool) error {
	bits := identity.PassphraseBits(passphrase)
	if bits >= identity.MinPassphraseBits {
		return nil
	}
	price := fmt.Sprintf("about 2^%.0f guesses find it, by anybody who copies the slots file", bits)
	if allowWeak {
		a.ui.warn("the passphrase is weak: %s, a former reader or whoever sees a copy of the disk; then the vault and each of its backups are theirs", price)
		return nil
	}
	return withHint(fmt.Errorf("%w: the passphrase is weak: %s, and 2^%d are wanted", vault.ErrInvalid, price, identity.MinPassphraseBits),
		"Choose six random words or more. Or take it all the same: --allow-weak")
}

// newPassphrase gets a new passphrase: from a file, or typed twice.
func (a *app) newPassphrase(ctx context.Context, file string) ([]byte, error) {
	if file != "" {
		return a.readPassphrase(ctx, file)
	}
	if !a.interactive() {
		return nil, fmt.Errorf("%w for a passphrase, so --passphrase-file FILE is needed", errNeedsFlag)
	}
	first, err := a.ui.askSecret(ctx, "New passphrase: ")
	if err != nil {
		return nil, err
	}
	defer clear(first)
	if len(first) == 0 || len(first) > maxPassphrase {
		return nil, fmt.Errorf("%w: a passphrase has 1 to %d bytes", vault.ErrInvalid, maxPassphrase)
	}
	second, err := a.ui.askSecret(ctx, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		clear(second)
		return nil, fmt.Errorf("%w: the two passphrases differ, so nothing was changed", vault.ErrInvalid)
	}
	return second, nil
}

type recoveryOptions struct {
	label string
	out   string
	sheet string
}

func (o *recoveryOptions) register(cmd *cobra.Command) {
	labelFlag(cmd, &o.label)
	cmd.Flags().StringVar(&o.out, "out", "", "write it to the new `FILE`")
	cmd.Flags().StringVar(&o.sheet, "sheet", "", "write a page to print to the new `FILE`")
}

func newSlotAddRecovery(a *app) *cobra.Command {
	var o recoveryOptions
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Make another recovery identity",
		Long: `Make a recovery identity: whoever has it opens the vault and its backups. It is
shown once, on the terminal, or written to new files: --out one that age takes,
--sheet a page to print, with the commands that recover.`,
		Example: `  rbee-vault slot add recovery
  rbee-vault slot add recovery --sheet /media/usb/sheet.txt`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSlotAddRecovery(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddRecovery(ctx context.Context, a *app, o recoveryOptions) error {
	n := vault.NewSlot{Kind: vault.SlotRecovery, Label: o.label}
	if err := addFile(&n, o.out, nil); err != nil {
		return err
	}
	err := addFile(&n, o.sheet, func(_ context.Context, i vault.NewIdentity) ([]byte, error) { return i.Sheet(), nil })
	if err != nil {
		return err
	}
	if len(n.Files) == 0 {
		if !a.interactive() {
			return fmt.Errorf("%w, so the recovery identity needs --out FILE or --sheet FILE", errNeedsFlag)
		}
		n.Show = a.showRecovery("add no slot")
	}
	return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
}

// encodeIdentity gives the content of the file that an identity is written to; nil: as
// age reads it.
type encodeIdentity func(context.Context, vault.NewIdentity) ([]byte, error)

// addFile has a new slot's identity written to a file, if one is named.
func addFile(n *vault.NewSlot, path string, encode encodeIdentity) error {
	if path == "" {
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	n.Files = append(n.Files, vault.IdentityFile{Path: abs, Encode: encode})
	return nil
}

func newSlotAddKeyring(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "keyring",
		Short: "Put the key into the OS keyring, or put it there again",
		Long: `Put the vault's key into the OS keyring of this desktop, opening the vault in any
other way: after the keyring was lost, or reset, or on a new machine.`,
		Example: `  rbee-vault slot add keyring --identity recovery.txt`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runSlotAddKeyring(cmd.Context(), a) },
	}
}

func runSlotAddKeyring(ctx context.Context, a *app) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		err := v.AddKeyring(ctx)
		if err != nil && classify(err).code == exitKeyring {
			return withHint(err, "Run it where the keyring is: in the desktop session of this user.")
		}
		if err != nil {
			return err
		}
		if a.json {
			m, _, err := metaAndSlots(ctx, v)
			if err != nil {
				return err
			}
			return a.ui.object(keyringSlot(m))
		}
		a.ui.info("The vault opens by the OS keyring now.")
		return nil
	})
}

type credentialOptions struct {
	label   string
	out     string
	systemd bool
	withKey string
}

func (o *credentialOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	labelFlag(cmd, &o.label)
	f.StringVar(&o.out, "out", "", "write the credential to the new `FILE`")
	f.BoolVar(&o.systemd, "systemd", false, "encrypt it by systemd-creds")
	f.StringVar(&o.withKey, "with-key", "", "have systemd-creds use this `KEY`: host, tpm2, host+tpm2 or auto (its default)")
}

func newSlotAddCredential(a *app) *cobra.Command {
	var o credentialOptions
	cmd := &cobra.Command{
		Use:   "credential --out FILE",
		Short: "Let a service in, by a systemd credential or a file",
		Long: `Make an identity for a service that runs without a keyring, and write it to the new
file FILE, mode 0600. With --systemd it never lies on the disk in clear: it goes
through a pipe to systemd-creds, which encrypts it for this machine (and its TPM,
where there is one); FILE is then for LoadCredentialEncrypted=rbee-vault:FILE. That
needs root, as the service manager that decrypts it is.

The slot is added when FILE is there, and was seen to decrypt.`,
		Example: `  rbee-vault slot add credential --systemd --out /etc/credstore.encrypted/rbee-vault
  rbee-vault slot add credential --out /run/secrets/rbee-vault`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSlotAddCredential(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddCredential(ctx context.Context, a *app, o credentialOptions) error {
	if o.out == "" {
		return usagef("--out FILE is needed")
	}
	if o.withKey != "" && !o.systemd {
		return usagef("--with-key goes with --systemd")
	}
	var encode encodeIdentity
	if o.systemd {
		encode = systemdCredential{o.withKey, a.ui.warn}.encode
	}
	n := vault.NewSlot{Kind: vault.SlotCredential, Label: o.label}
	if err := addFile(&n, o.out, encode); err != nil {
		return err
	}
	return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
}
