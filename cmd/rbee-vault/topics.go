package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// topics are the pages of `rbee-vault help TOPIC`.
var topics = []struct{ name, short, long string }{
	{"settings", "The defaults that can be set", `A flag comes first, then the variable of the environment, then the file of this machine,
then the vault, then what is built in. "rbee-vault config list" shows each value, and where
it comes from.

Kept in the vault, so that they travel with it:

` + settingsText(false) + `
About this machine, in $XDG_CONFIG_HOME/rbee-vault/config.toml (else ~/.config/...), which may
also have another value for those above:

` + settingsText(true) + `
A line of the file is as in: ssh-user = "ops". Other users must not be able to change it. Where systemd
passes a credential, that is used and not the file's identity-file.`},
	{"environment", "The variables that the command reads", `A flag comes first, then the variable, then the settings ("rbee-vault help settings"). No
variable holds a secret: other programs can read them.

  RBEE_VAULT_DB             the database (--db)
  RBEE_VAULT_IDENTITY_FILE  a file with identities that open the vault (--identity)
  RBEE_VAULT_SSH_USER, ...  any other setting: its name in capitals
  RBEE_VAULT_SIGNER         the vault's signer, or the file of a sheet (--signer)
  CREDENTIALS_DIRECTORY     of systemd: the file rbee-vault in it is an identity
  XDG_CONFIG_HOME           where the file of settings is
  XDG_RUNTIME_DIR           where the sockets of agent and serve are, and what ssh needs
  SSH_AUTH_SOCK             your own SSH agent, for ssh-key install and node add --install
  SSH_ASKPASS               the program that asks, for agent --confirm
  NO_COLOR, TERM            how the output looks on a terminal`},
	{"exit-codes", "What the exit code says", exitCodesText()},
	{"selectors", "How to name many nodes at once", `A command that takes nodes takes names and globs, and conditions with --where. In globs, *
stands for any text, ? for one letter, [ab] for one of them: quote them from the shell.

  rbee-vault node list 'hive-*'
  rbee-vault check --where status=offline
  rbee-vault exec --where 'label.rack=3,cuda>=2' -- nvidia-smi

  status=online             the status: unknown, online, offline or error; also !=
  backend=cuda              the node has the backend; also !=
  cuda>=2                   how many devices of the backend it has: = != < <= > >=
  label.rack=3              the label's value or a glob; also !=, and label.rack=* for any
  seen<10m                  the last contact was less than that ago; seen>1d: longer, or never

Commas join conditions, and all must hold. A node whose backends are not known meets no
condition on them. Without a name, a glob or a condition, a command that only looks takes
all nodes, and one that changes nodes takes none.`},
	{"unlocking", "What opens the vault, and in which order", `The first of these that is present decides. If it fails, the command says why and names the
others; it does not try them by itself.

  1. --identity FILE, $RBEE_VAULT_IDENTITY_FILE, or the setting identity-file: the recovery identity, a recipient's age
     or SSH identity, or that of an age plugin
  2. a systemd credential named rbee-vault
  3. the OS keyring, where the vault has its key in it
  4. a passphrase, on a terminal or by --passphrase-file; --passphrase asks for it first

"rbee-vault slot list" shows the unlock methods of a vault, and "rbee-vault doctor" tries
them. Identities are tried one by one. Who opens by an identity has the vault vouched for by
its signer: from the comments in the identity's file, by the slot, or by --signer.`},
	{"formats", "The files and the output", `  a table                on a terminal
  tab-separated text     in a pipe, without headings, cleaned of what a terminal obeys
  JSON                   with --json: one object a line for lists; exact

  beehives.db            the database: SQLCipher 4
  beehives.db.slots      the unlock methods: JSON, each an age message
  *.tar.gz.age           a backup: age, gzip, tar; README.txt inside says the rest

Times are UTC, as 2026-01-02T15:04:05.000Z. An error under --json is an object on standard
error: {"error": {"code", "name", "message", "hint"}}. Names and codes are promises.`},
}

// exitCodes are the exit codes and what they say.
var exitCodes = []struct {
	code int
	text string
}{
	{exitOK, "all is done"},
	{exitError, "an error without a code of its own"},
	{exitPartial, "done in part: the messages say what was not"},
	{exitNoVault, "there is no vault"},
	{exitLocked, "another process holds a lock"},
	{exitWrongKey, "wrong key, or no unlock method"},
	{exitKeyring, "the keyring cannot answer"},
	{exitNotFound, "not found"},
	{exitExists, "exists already"},
	{exitInvalid, "invalid input"},
	{exitNewer, "made by a newer version"},
	{exitDamaged, "integrity: damaged, tampered with, or an older copy"},
	{exitUntrusted, "nothing vouches for a vault or a backup"},
	{exitUsage, "the command line is wrong"},
	{exitInterrupted, "interrupted"},
}

func exitCodesText() string {
	var b strings.Builder
	for _, c := range exitCodes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.code, c.text)
	}
	b.WriteString("\nCodes are only added, never changed. ssh ends with the status of ssh.")
	return b.String()
}

// addTopics adds the pages, which are commands that do nothing.
func addTopics(root *cobra.Command) {
	for _, t := range topics {
		root.AddCommand(&cobra.Command{Use: t.name, Short: t.short, Long: t.long, DisableFlagsInUseLine: true})
	}
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), `Global Flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}`, `The flags of every command: rbee-vault --help`, 1))
}
