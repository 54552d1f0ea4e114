package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check everything, and say how to mend it",
		Long: `Check modes and owners, the keyring, the slots file, every way in, the age of the
key, every page of the database, the audit log, the backups and leftovers: a line
each, with the command that mends it. Secrets that are offered (--identity,
--passphrase) are tried on every slot. It works on a vault that does not open.
Exit 18 on damage, 3 on other failures.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), a) },
	}
}

type findingJSON struct {
	Check   string              `json:"check"`
	Status  vault.FindingStatus `json:"status"`
	Message string              `json:"message"`
	Mend    *string             `json:"mend"`
}

// oldBackup is the age from which a backup is worth a warning.
const oldBackup = 30 * 24 * time.Hour

func runDoctor(ctx context.Context, a *app) error {
	cfg, err := a.config(ctx)
	if err != nil {
		return err
	}
	provider := examineKeyring(ctx, cfg)
	cfg.Logger = nil // what it would say stands in the findings
	opts := vault.ExamineOptions{Use: func(v *vault.Vault) []vault.Finding {
		return []vault.Finding{examineBackups(ctx, a, v)}
	}}
	opts.Offers = a.offers
	found, err := vault.Examine(ctx, cfg, opts)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Check == "keyring item" && strings.HasPrefix(f.Message, "none") {
			provider.Status, provider.Mend = vault.FindingOK, "" // nobody needs one
		}
	}
	found = append([]vault.Finding{provider, examineProcess()}, found...)
	var worst error
	for _, f := range found {
		if err := printFinding(a, f); err != nil {
			return err
		}
		if f.Status != vault.FindingFail {
			continue
		}
		if classify(f.Err).code == exitDamaged {
			worst = f.Err
		} else if worst == nil {
			worst = errFindings
		}
	}
	return worst
}

func printFinding(a *app, f vault.Finding) error {
	hint := f.Mend
	if f.Status == vault.FindingFail && hint == "" {
		hint = classify(f.Err).hint
	}
	if a.json {
		return a.ui.object(findingJSON{f.Check, f.Status, f.Message, wire.Nullable(hint)})
	}
	style := map[vault.FindingStatus]lipgloss.Style{vault.FindingOK: green, vault.FindingWarn: yellow, vault.FindingFail: red}[f.Status]
	a.ui.printf("%s  %s: %s\n", a.ui.paint(style, fmt.Sprintf("%-4s", f.Status)), f.Check, f.Message)
	if hint != "" {
		a.ui.printf("        %s\n", hint)
	}
	return nil
}

// examineProcess sees that this process would leave no core dump.
func examineProcess() vault.Finding {
	if err := hardened(); err != nil {
		return vault.Finding{Check: "core dumps", Status: vault.FindingWarn, Message: err.Error()}
	}
	return vault.Finding{Check: "core dumps", Status: vault.FindingOK, Message: "off, and no program of the same user can attach"}
}

// examineKeyring names the program behind the keyring. A vault may do without,
// so its absence alone is no failure.
func examineKeyring(ctx context.Context, cfg vault.Config) vault.Finding {
	k, ok := cfg.Keyring.(*keyring.Keyring)
	if !ok {
		return vault.Finding{Check: "keyring", Status: vault.FindingOK, Message: "none"}
	}
	provider, err := k.Provider(ctx)
	if err != nil {
		return vault.Finding{Check: "keyring", Status: vault.FindingWarn, Message: err.Error(), Mend: classify(err).hint}
	}
	return vault.Finding{Check: "keyring", Status: vault.FindingOK, Message: provider}
}

// examineBackups looks at the newest backup's age and file.
func examineBackups(ctx context.Context, a *app, v *vault.Vault) vault.Finding {
	f := vault.Finding{Check: "backup", Status: vault.FindingWarn, Mend: "rbee-vault backup"}
	last, err := lastBackup(ctx, v)
	switch {
	case err != nil:
		return vault.Finding{Check: "backup", Status: vault.FindingFail, Message: err.Error(), Err: err}
	case last == nil:
		f.Message = "there is none yet"
	case last.File(false) != backup.FilePresent && last.File(false) != backup.FileStreamed:
		f.Message = fmt.Sprintf("the last one, %s, is %s", last.Path, last.File(false))
	case a.now().Sub(last.Created) > oldBackup:
		f.Message = fmt.Sprintf("the last one is %s old", ago(a.now().Sub(last.Created)))
	default:
		return vault.Finding{Check: "backup", Status: vault.FindingOK, Message: fmt.Sprintf("%s ago, %s (%s)", ago(a.now().Sub(last.Created)), last.Path, last.File(false))}
	}
	return f
}
