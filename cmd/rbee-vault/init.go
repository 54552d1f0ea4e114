package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type initOptions struct {
	recoveryOut string
	sheet       string
	recipients  []string
	pq          bool
	noKeyring   bool
}

func (o *initOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.recoveryOut, "recovery-out", "", "write the recovery identity to the new `FILE`")
	f.StringVar(&o.sheet, "sheet", "", "write a recovery sheet, for printing, to the new `FILE`: .txt, or .pdf, .png or .svg with a QR code")
	f.StringArrayVar(&o.recipients, "recipient", nil, "also let the owner of this public `KEY` open the vault: age1..., ssh-ed25519 or ssh-rsa; repeatable")
	f.BoolVar(&o.pq, "pq", false, "create a post-quantum vault: recipients are age1pq1...")
	f.BoolVar(&o.noKeyring, "no-keyring", false, "do not store the key in the OS keyring: the vault opens with an identity only")
}

func newInit(a *app) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Create a new vault",
		Long: `Create a new vault: an encrypted database. Its key is stored in the OS keyring and in
slots. The recovery identity opens one slot, and each recipient's key another.

The recovery identity is shown once, on the terminal, or written to new files: with
--recovery-out to an identity file of age, with --sheet to a page for printing. Whoever has it can open the vault and its backups. Without it, a lost
keyring means a lost vault, unless there is another recipient. Keep it offline.`,
		Example: `  rbee-vault init
  rbee-vault init --recovery-out /media/usb/recovery.txt --recipient age1...
  rbee-vault init --sheet /media/usb/sheet.pdf
  rbee-vault init --no-keyring --no-input --recovery-out recovery.txt`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInit(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type signerJSON struct {
	Fingerprint    string `json:"fingerprint"`
	AllowedSigners string `json:"allowed_signers"`
}

func newSignerJSON(publicKey string) signerJSON {
	return signerJSON{vault.Fingerprint(publicKey), vault.AllowedSigner(publicKey)}
}

type initJSON struct {
	Path              string       `json:"path"`
	VaultID           string       `json:"vault_id"`
	KeyID             string       `json:"key_id"`
	Keyring           bool         `json:"keyring"`
	RecoveryRecipient *string      `json:"recovery_recipient"`
	Signer            signerJSON   `json:"signer"`
	Slots             []vault.Slot `json:"slots"`
}

func runInit(ctx context.Context, a *app, o initOptions) error {
	a.creating = true
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	opts, err := o.build(a)
	if err != nil {
		return err
	}
	created, err := vault.Create(ctx, cfg, opts)
	if err != nil {
		return initHint(err, cfg.Path)
	}
	return a.showInit(created, opts)
}

func (a *app) showInit(created vault.Created, opts vault.CreateOptions) error {
	if a.json {
		return a.ui.object(initJSON{
			Path:              created.Path,
			VaultID:           created.VaultID,
			KeyID:             created.KeyID.String(),
			Keyring:           !opts.NoKeyring,
			RecoveryRecipient: wire.Nullable(created.RecoveryRecipient),
			Signer:            newSignerJSON(created.Signer),
			Slots:             created.Slots,
		})
	}
	a.showCreated(created, opts)
	return nil
}

// build returns the options for the vault package. The recovery identity is written to a
// file or shown on the terminal, or there must be a recipient.
func (o initOptions) build(a *app) (vault.CreateOptions, error) {
	opts := vault.CreateOptions{Recipients: o.recipients, PostQuantum: o.pq, NoKeyring: o.noKeyring}
	page, err := newSheet(o.sheet)
	if err != nil {
		return opts, err
	}
	if page != "" {
		opts.RecoverySheets = []vault.IdentityFile{{Path: string(page), Encode: page.recovery}}
	}
	if o.recoveryOut != "" {
		if opts.RecoveryFile, err = filepath.Abs(o.recoveryOut); err != nil {
			return opts, err
		}
	}
	switch {
	case page != "" || o.recoveryOut != "":
	case a.interactive():
		opts.ShowRecovery = a.showRecovery("create no vault")
	case len(o.recipients) == 0:
		return opts, fmt.Errorf("%w, so --recovery-out FILE, --sheet FILE or --recipient KEY is needed", errNeedsFlag)
	}
	return opts, nil
}

func (a *app) showCreated(created vault.Created, opts vault.CreateOptions) {
	a.ui.pairs([][2]string{
		{"vault", created.Path},
		{"vault id", created.VaultID},
		{"signer", vault.Fingerprint(created.Signer)},
	})
	if opts.RecoveryFile != "" {
		a.ui.info(`
The recovery identity is in %s. It opens this vault, and every backup
of it, when the keyring is lost. Move it offline, away from this machine. Keep the
signer's fingerprint with it: a restore asks for the fingerprint.`, opts.RecoveryFile)
	}
	for _, page := range opts.RecoverySheets {
		a.ui.info("\n"+sheetWritten, page.Path)
	}
	if opts.RecoveryFile == "" && len(opts.RecoverySheets) == 0 && opts.ShowRecovery == nil {
		a.ui.info(`
There is no recovery identity: if the keyring is lost, only the recipients' keys open
this vault.`)
	}
	if opts.NoKeyring {
		a.ui.info(`
Without a keyring, only %s
holds the vault's key. Make backups: rbee-vault backup`, created.Path+".slots")
	}
	a.ui.info("\nNext: rbee-vault node add NAME --ssh-host HOST --ssh-user USER --git-repo URL --install-path PATH")
}

// initHint adds the next step after a failed init.
func initHint(err error, path string) error {
	switch {
	case errors.Is(err, vault.ErrPlaintext):
		return withHint(err, "The file was not changed. Create a vault beside it and import the file: rbee-vault init --db %[2]s && rbee-vault node import %[1]s --db %[2]s", wire.Quote(path), wire.Quote(path+".vault"))
	case errors.Is(err, vault.ErrExists):
		return withHint(err, "Nothing was changed. Use that vault, or choose another path with --db.")
	case noKeyringHere(err):
		return withHint(err, "No vault was created. On a machine without a keyring, create one that opens with an identity only: rbee-vault init --no-keyring")
	}
	return err
}

// noKeyringHere reports whether the machine has no keyring at all. A keyring that is
// locked or does not answer is another matter.
func noKeyringHere(err error) bool {
	return errors.Is(err, keyring.ErrNoBus) || errors.Is(err, keyring.ErrNoProvider) || errors.Is(err, keyring.ErrNoCollection)
}

// showRecovery returns a function that shows a recovery identity once, on the terminal,
// and asks the operator to confirm it. otherwise says what Ctrl-C does.
func (a *app) showRecovery(otherwise string) func(context.Context, vault.NewIdentity) error {
	return func(ctx context.Context, n vault.NewIdentity) error {
		tty := a.ui.terminal()
		if tty == nil {
			return errNeedsFlag
		}
		fmt.Fprintf(tty, `
Recovery identity of vault %s

    %s

    recipient  %s
    signer     %s

It opens this vault, and every backup of it, when the keyring is lost. It is not
stored anywhere and cannot be shown again. Write it down, or put it into a password
manager that is not on this machine only. Keep the signer's fingerprint with it: a
restore asks for the fingerprint.

`, n.VaultID, n.Identity, n.Recipient, vault.Fingerprint(n.Signer))
		last := n.Identity[len(n.Identity)-6:]
		for range 3 {
			answer, err := a.ui.ask(ctx, fmt.Sprintf("Type its last 6 characters to confirm that you have it (Ctrl-C: %s): ", otherwise))
			if err != nil {
				return err
			}
			if strings.EqualFold(answer, last) {
				return nil
			}
			fmt.Fprintln(tty, "Those are not its last 6 characters.")
		}
		return fmt.Errorf("%w: the recovery identity was not confirmed", errDeclined)
	}
}
