package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sethvargo/go-diceware/diceware"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newSlotAdd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add an unlock method",
		Long: `Add an unlock method. Any existing unlock method is enough to add one. The new recipient
can also read the backups that are made from then on.`,
	}
	cmd.AddCommand(newSlotAddRecipient(a), newSlotAddPassphrase(a), newSlotAddRecovery(a), newSlotAddKeyring(a), newSlotAddCredential(a))
	return cmd
}

// addSlot adds a slot to the open vault and prints it.
func (a *app) addSlot(ctx context.Context, v *vault.Vault, n vault.NewSlot) error {
	s, err := v.AddSlot(ctx, n)
	if errors.Is(err, vault.ErrPlugin) {
		return withHint(err, "Nothing was changed. Install the plugin first: every backup and rotation needs it too.")
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.ui.object(s)
	}
	a.ui.printf("%s\n", s.ID)
	a.ui.info("The vault now opens by %s.", slotText(s))
	return nil
}

// ownerOptions are the flags that say whose a slot is.
type ownerOptions struct {
	label  string
	person string
}

func (o *ownerOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.label, "label", "", "`NAME` of the slot")
	cmd.Flags().StringVar(&o.person, "for", "", "the `PERSON` that it belongs to, such as ops@example.org: what is done through it is audited with that name")
}

type recipientOptions struct{ ownerOptions }

func newSlotAddRecipient(a *app) *cobra.Command {
	var o recipientOptions
	cmd := &cobra.Command{
		Use:   "recipient KEY",
		Short: "Add the owner of a public key: age1..., ssh-ed25519, ssh-rsa, or of an age plugin",
		Example: `  rbee-vault slot add recipient age1... --label laptop --for ops@example.org
  rbee-vault slot add recipient "$(cat ~/.ssh/id_ed25519.pub)"
  rbee-vault slot add recipient age1yubikey1...`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSlotAddRecipient(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddRecipient(ctx context.Context, a *app, o recipientOptions, args []string) error {
	n := vault.NewSlot{Kind: vault.SlotRecipient, Label: o.label, Person: o.person, Recipient: strings.Join(args, " ")}
	return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
}

type passphraseOptions struct {
	ownerOptions
	file       string
	allowWeak  bool
	workFactor int
}

func (o *passphraseOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	o.ownerOptions.register(cmd)
	f.StringVar(&o.file, "passphrase-file", "", "read the new passphrase from the only line of `FILE`, '-' or 'fd:N'")
	f.BoolVar(&o.allowWeak, "allow-weak", false, "accept a passphrase that can be guessed")
	f.IntVar(&o.workFactor, "work-factor", identity.MinWorkFactor, fmt.Sprintf("scrypt work factor: 2^`N` steps, N from %d to %d", identity.MinWorkFactor, identity.MaxWorkFactor))
}

func newSlotAddPassphrase(a *app) *cobra.Command {
	var o passphraseOptions
	cmd := &cobra.Command{
		Use:   "passphrase",
		Short: "Add a passphrase",
		Long: `Add a passphrase. You type it twice, or it is read from a file that has one line.

Whoever has a copy of the slots file can try any number of passphrases on it; only
scrypt slows them down. Choose six random words or more: the prompt offers six, from EFF's
list. A passphrase that is estimated below 60 bits is refused, unless you give
--allow-weak. A passphrase can be forgotten, so it does not count as the recovery or
recipient slot that every vault must have.

--passphrase-file is here the new passphrase. To open the vault with an existing
passphrase, type that at its prompt.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSlotAddPassphrase(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddPassphrase(ctx context.Context, a *app, o passphraseOptions) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		passphrase, err := a.newPassphrase(ctx, o.file, func(p []byte) error { return a.checkStrength(p, o.allowWeak) })
		if err != nil {
			return err
		}
		defer clear(passphrase)
		return a.addSlot(ctx, v, vault.NewSlot{Kind: vault.SlotPassphrase, Label: o.label, Person: o.person, Passphrase: passphrase, WorkFactor: o.workFactor})
	})
}

// checkStrength refuses a passphrase that can be guessed, or warns if that is allowed.
func (a *app) checkStrength(passphrase []byte, allowWeak bool) error {
	bits := identity.PassphraseBits(passphrase)
	if bits >= identity.MinPassphraseBits {
		return nil
	}
	weak := fmt.Sprintf("the passphrase is weak: about 2^%.0f guesses find it", bits)
	if allowWeak {
		a.ui.warn("%s. Anybody who has a copy of the slots file, such as a former user, could then read the vault and each of its backups", weak)
		return nil
	}
	return withHint(fmt.Errorf("%w: %s, and at least 2^%d are required", vault.ErrInvalid, weak, identity.MinPassphraseBits),
		"Choose six random words or more. To accept a weak passphrase: --allow-weak")
}

// offeredWords is how many words of EFF's list are offered as a passphrase: 77 bits.
const offeredWords = 6

// newPassphrase reads a new passphrase from a file, or prompts for it twice. Whoever takes
// the offered words types them once, which shows that they were noted. check refuses a passphrase;
// at a prompt another one may be typed then.
func (a *app) newPassphrase(ctx context.Context, file string, check func([]byte) error) ([]byte, error) {
	if file != "" {
		passphrase, err := a.readPassphrase(ctx, file)
		if err != nil {
			return nil, err
		}
		if err := check(passphrase); err != nil {
			clear(passphrase)
			return nil, err
		}
		return passphrase, nil
	}
	if err := a.needPassphrasePrompt(); err != nil {
		return nil, err
	}
	words, err := diceware.Generate(offeredWords)
	if err != nil {
		return nil, err
	}
	offer := strings.Join(words, "-")
	a.ui.say("Six random words, if you want them: %s", offer)
	for attempt := 1; ; attempt++ {
		passphrase, err := a.typePassphrase(ctx, offer, check)
		if !errors.Is(err, vault.ErrInvalid) || attempt == 3 {
			return passphrase, err
		}
		a.ui.say("%s.", strings.TrimPrefix(err.Error(), vault.ErrInvalid.Error()+": "))
	}
}

// typePassphrase prompts for a new passphrase, twice if check takes it.
func (a *app) typePassphrase(ctx context.Context, offer string, check func([]byte) error) ([]byte, error) {
	first, err := a.ui.askSecret(ctx, "New passphrase (Enter: these words): ")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		first = []byte(offer)
	}
	defer clear(first)
	if len(first) > maxPassphrase {
		return nil, fmt.Errorf("%w: a passphrase has 1 to %d bytes", vault.ErrInvalid, maxPassphrase)
	}
	if err := check(first); err != nil {
		return nil, err
	}
	second, err := a.ui.askSecret(ctx, "Repeat passphrase: ")
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
	ownerOptions
	out   string
	sheet string
}

func (o *recoveryOptions) register(cmd *cobra.Command) {
	o.ownerOptions.register(cmd)
	cmd.Flags().StringVar(&o.out, "out", "", "write the identity to the new `FILE`")
	cmd.Flags().StringVar(&o.sheet, "sheet", "", "write a recovery sheet, for printing, to the new `FILE`: .txt, or .pdf, .png or .svg with a QR code")
}

func newSlotAddRecovery(a *app) *cobra.Command {
	var o recoveryOptions
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Add another recovery identity",
		Long: `Add a recovery identity. Whoever has it can open the vault and its backups. It is shown
once, on the terminal, or written to new files: with --out to an identity file of age,
with --sheet to a page for printing that has the commands for a recovery. In a .pdf, .png
or .svg the page has the identity as a QR code too.`,
		Example: `  rbee-vault slot add recovery
  rbee-vault slot add recovery --sheet /media/usb/sheet.pdf`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSlotAddRecovery(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

func runSlotAddRecovery(ctx context.Context, a *app, o recoveryOptions) error {
	n := vault.NewSlot{Kind: vault.SlotRecovery, Label: o.label, Person: o.person}
	if err := addFile(&n, o.out, nil); err != nil {
		return err
	}
	page, err := newSheet(o.sheet)
	if err == nil {
		err = addFile(&n, string(page), page.recovery)
	}
	if err != nil {
		return err
	}
	if len(n.Files) == 0 {
		if !a.interactive() {
			return fmt.Errorf("%w, so the recovery identity needs --out FILE or --sheet FILE", errNeedsFlag)
		}
		n.Show = a.showRecovery("add no slot")
	}
	if err := a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) }); err != nil {
		return err
	}
	if o.out != "" {
		a.ui.info("The recovery identity is in %s. Move it offline, away from this machine.", o.out)
	}
	if page != "" {
		a.ui.info(sheetWritten, string(page))
	}
	return nil
}

// encodeIdentity returns the content of the file that an identity is written to. nil
// stands for the identity file of age.
type encodeIdentity func(context.Context, vault.NewIdentity) ([]byte, error)

// addFile adds a file that the identity of a new slot is written to, if there is a path.
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
		Short: "Store the key in the OS keyring, or store it there again",
		Long: `Open the vault with another unlock method, and store its key in the OS keyring of this
desktop. Use it on a new machine, or after the keyring was lost or reset.`,
		Example: `  rbee-vault slot add keyring --identity recovery.txt`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runSlotAddKeyring(cmd.Context(), a) },
	}
}

func runSlotAddKeyring(ctx context.Context, a *app) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		err := v.AddKeyring(ctx)
		if err != nil && classify(err).code == exitKeyring {
			return withHint(err, "Run this where the keyring is available: in the desktop session of this user.")
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
		a.ui.info("The vault now opens by the OS keyring.")
		return nil
	})
}

type credentialOptions struct {
	ownerOptions
	out     string
	systemd bool
	withKey string
}

func (o *credentialOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	o.ownerOptions.register(cmd)
	f.StringVar(&o.out, "out", "", "write the credential to the new `FILE`")
	f.BoolVar(&o.systemd, "systemd", false, "encrypt it with systemd-creds")
	f.StringVar(&o.withKey, "with-key", "", "the `KEY` that systemd-creds uses: host, tpm2, host+tpm2 or auto (its default)")
}

func newSlotAddCredential(a *app) *cobra.Command {
	var o credentialOptions
	cmd := &cobra.Command{
		Use:   "credential --out FILE",
		Short: "Add a service, by a systemd credential or a file",
		Long: `Create an identity for a service that runs without a keyring, and write it to the new
file FILE, mode 0600.

With --systemd the identity is never on the disk in plaintext: it goes through a pipe to
systemd-creds, which encrypts it for this machine (and its TPM, if there is one). Use
FILE with LoadCredentialEncrypted=rbee-vault:FILE. This needs root, because the service
manager that decrypts the file runs as root.

The slot is added after FILE was written and can be decrypted.`,
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
		return usagef("--with-key needs --systemd")
	}
	var encode encodeIdentity
	if o.systemd {
		encode = systemdCredential{o.withKey, a.ui.warn}.encode
	}
	n := vault.NewSlot{Kind: vault.SlotCredential, Label: o.label, Person: o.person}
	if err := addFile(&n, o.out, encode); err != nil {
		return err
	}
	return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
}
