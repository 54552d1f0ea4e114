package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newSlot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "slot",
		Short: "The ways into the vault: list, add, remove",
		Long: `A slot is a way into the vault besides its keyring: the vault's key, encrypted to
one recipient. Each way alone opens everything, so losing one loses nothing while
another is left.`,
	}
	cmd.AddCommand(newSlotList(a), newSlotAdd(a), newSlotRemove(a))
	return cmd
}

// keyringSlot stands for the OS keyring in lists: it is no slot, but a way in.
func keyringSlot(m vault.Meta) vault.Slot {
	return vault.Slot{ID: keyringName, Kind: keyringName, Created: m.KeyCreated}
}

const keyringName = "keyring"

func newSlotList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the ways in; `rbee-vault doctor` tries them",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return a.withVault(ctx, func(v *vault.Vault) error {
				m, slots, err := metaAndSlots(ctx, v)
				if err != nil {
					return err
				}
				if m.Keyring {
					slots = append(slots, keyringSlot(m))
				}
				if a.json {
					return objects(a.ui, slots)
				}
				var rows [][]string
				for _, s := range slots {
					recipient := s.Recipient
					if a.ui.pretty {
						recipient = wire.Shorten(recipient, 70)
					}
					rows = append(rows, []string{s.ID, string(s.Kind), s.Label, s.Created.Format("2006-01-02"), recipient})
				}
				a.ui.table([]string{"ID", "KIND", "LABEL", "CREATED", "RECIPIENT"}, rows, nil)
				return nil
			})
		},
	}
}

func metaAndSlots(ctx context.Context, v *vault.Vault) (m vault.Meta, slots []vault.Slot, err error) {
	err = v.View(ctx, func(tx *vault.Tx) (err error) {
		if m, err = tx.Meta(ctx); err != nil {
			return err
		}
		slots, err = tx.Slots(ctx)
		return err
	})
	return m, slots, err
}

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

func newSlotAddRecipient(a *app) *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use:   "recipient KEY",
		Short: "Let the owner of a public key in: age1..., ssh-ed25519, ssh-rsa, or of an age plugin",
		Example: `  rbee-vault slot add recipient age1... --label "ops@example.org"
  rbee-vault slot add recipient "$(cat ~/.ssh/id_ed25519.pub)"
  rbee-vault slot add recipient age1yubikey1...`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			n := vault.NewSlot{Kind: vault.SlotRecipient, Label: label, Recipient: strings.Join(args, " ")}
			return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
		},
	}
	labelFlag(cmd, &label)
	return cmd
}

func labelFlag(cmd *cobra.Command, label *string) {
	cmd.Flags().StringVar(label, "label", "", "call it `NAME`")
}

func newSlotAddPassphrase(a *app) *cobra.Command {
	var label, file string
	var workFactor int
	var allowWeak bool
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return a.withVault(ctx, func(v *vault.Vault) error {
				passphrase, err := a.newPassphrase(ctx, file)
				if err != nil {
					return err
				}
				defer clear(passphrase)
				if err := a.checkStrength(passphrase, allowWeak); err != nil {
					return err
				}
				return a.addSlot(ctx, v, vault.NewSlot{Kind: vault.SlotPassphrase, Label: label, Passphrase: passphrase, WorkFactor: workFactor})
			})
		},
	}
	labelFlag(cmd, &label)
	cmd.Flags().StringVar(&file, "passphrase-file", "", "take the new passphrase from the one line of `FILE`, '-', or 'fd:N'")
	cmd.Flags().BoolVar(&allowWeak, "allow-weak", false, "take a passphrase that can be guessed")
	cmd.Flags().IntVar(&workFactor, "work-factor", identity.MinWorkFactor, fmt.Sprintf("let scrypt take 2^`N` steps for it, %d to %d", identity.MinWorkFactor, identity.MaxWorkFactor))
	return cmd
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

func newSlotAddRecovery(a *app) *cobra.Command {
	var label, out, sheet string
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Make another recovery identity",
		Long: `Make a recovery identity: whoever has it opens the vault and its backups. It is
shown once, on the terminal, or written to new files: --out one that age takes,
--sheet a page to print, with the commands that recover.`,
		Example: `  rbee-vault slot add recovery
  rbee-vault slot add recovery --sheet /media/usb/sheet.txt`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			n := vault.NewSlot{Kind: vault.SlotRecovery, Label: label}
			if err := addFile(&n, out, nil); err != nil {
				return err
			}
			err := addFile(&n, sheet, func(_ context.Context, i vault.NewIdentity) ([]byte, error) { return i.Sheet(), nil })
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
		},
	}
	labelFlag(cmd, &label)
	cmd.Flags().StringVar(&out, "out", "", "write it to the new `FILE`")
	cmd.Flags().StringVar(&sheet, "sheet", "", "write a page to print to the new `FILE`")
	return cmd
}

// addFile has a new slot's identity written to a file, if one is named.
func addFile(n *vault.NewSlot, path string, encode func(context.Context, vault.NewIdentity) ([]byte, error)) error {
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return a.withVault(ctx, func(v *vault.Vault) error {
				if err := v.AddKeyring(ctx); err != nil {
					if classify(err).code == exitKeyring {
						err = withHint(err, "Run it where the keyring is: in the desktop session of this user.")
					}
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
		},
	}
}

func newSlotAddCredential(a *app) *cobra.Command {
	var label, out, withKey string
	var systemd bool
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if out == "" {
				return usagef("--out FILE is needed")
			}
			if withKey != "" && !systemd {
				return usagef("--with-key goes with --systemd")
			}
			n := vault.NewSlot{Kind: vault.SlotCredential, Label: label}
			var encode func(context.Context, vault.NewIdentity) ([]byte, error)
			if systemd {
				encode = systemdCredential{withKey, a.ui.warn}.encode
			}
			if err := addFile(&n, out, encode); err != nil {
				return err
			}
			return a.withVault(ctx, func(v *vault.Vault) error { return a.addSlot(ctx, v, n) })
		},
	}
	labelFlag(cmd, &label)
	cmd.Flags().StringVar(&out, "out", "", "write the credential to the new `FILE`")
	cmd.Flags().BoolVar(&systemd, "systemd", false, "encrypt it by systemd-creds")
	cmd.Flags().StringVar(&withKey, "with-key", "", "have systemd-creds use this `KEY`: host, tpm2, host+tpm2 or auto (its default)")
	return cmd
}

type removedJSON struct {
	Removed vault.Slot `json:"removed"`
	Left    []string   `json:"left_in_keyring"`
}

func newSlotRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID|LABEL|keyring",
		Short: "Take a way in away",
		Long: `Take a way into the vault away, by its id, the beginning of that from four digits
on, or its label. The last recovery or recipient slot stays.

The key of the vault does not change: who has opened the vault by that way before,
or has a copy of the slots file, may still have it. ` + "`rbee-vault rotate`" + ` changes it.

"keyring" takes the OS keyring away, also where it is lost for good.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSlotRemove(cmd.Context(), a, args[0]) },
	}
}

func runSlotRemove(ctx context.Context, a *app, name string) error {
	return a.withVault(ctx, func(v *vault.Vault) error {
		m, slots, err := metaAndSlots(ctx, v)
		if err != nil {
			return err
		}
		gone, keyring := keyringSlot(m), m.Keyring
		if name == keyringName && !m.Keyring {
			return fmt.Errorf("%w: the OS keyring is no way into this vault", vault.ErrNoSlot)
		} else if name == keyringName {
			keyring = false
		} else if gone, err = vault.FindSlot(slots, name); err != nil {
			return err
		}
		remaining := slices.DeleteFunc(slots, func(s vault.Slot) bool { return s.ID == gone.ID })
		if !slices.ContainsFunc(remaining, vault.Slot.Durable) { // before anything is asked
			return fmt.Errorf("%w: %s", vault.ErrLastSlot, gone.ID)
		}
		if err := a.ui.confirm(ctx, fmt.Sprintf("Remove %s? The vault then opens by: %s.", slotText(gone), vault.WaysIn(remaining, keyring))); err != nil {
			return err
		}
		var left []string
		if name == keyringName {
			left, err = v.RemoveKeyring(ctx)
		} else {
			err = v.RemoveSlot(ctx, gone.ID)
		}
		if err != nil {
			return err
		}
		if a.json {
			if err := a.ui.object(removedJSON{gone, append([]string{}, left...)}); err != nil {
				return err
			}
		}
		a.ui.info("Removed: %s.", slotText(gone))
		if len(left) > 0 {
			a.ui.warn("the keyring did not answer: remove these items from it when it does (service rbee-vault): %s", strings.Join(left, ", "))
		}
		a.ui.info(`The vault's key has not changed: who used that way before may still have it. A new
key takes it away: rbee-vault rotate`)
		if a.interactive() && !a.yes && !a.json {
			// With this handle: the way that opened it may be the one that is gone.
			err := a.ui.confirm(ctx, "Rotate now?")
			if err == nil {
				err = a.rotate(ctx, v)
			}
			if err != nil && !errors.Is(err, errDeclined) {
				return err
			}
		}
		if len(left) > 0 {
			return errPartial
		}
		return nil
	})
}
