package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/identity"
	"github.com/rbee-keeper/rbee-vault/vault"
)

// readmePage is what the reader copies commands from.
const readmePage = "../../README.md"

// readmeExcept are lines that do not run here, and why. A line that README no longer has is
// an error.
var readmeExcept = map[string]string{
	"make build":   "TestMain has built the command; TestREADMEWords looks for the target",
	"make install": "asks for packages of Debian where they are missing",
	"go install github.com/rbee-keeper/rbee-vault/cmd/rbee-vault@latest": "the network",
	"make dist":      "takes minutes",
	"make test-dist": "takes minutes, and a Debian from the network",
	"sudo rbee-vault backup install-timer --system --run-as ops --db /home/ops/.rbee/beehives.db --on-calendar hourly": "sudo, and the manager of a system",
}

// readmeSection is what README takes for granted where a section begins: the state that the
// sections before it have left, and this.
type readmeSection struct {
	machine string                   // whose home directory it is in, "" for that of the section before
	prepare string                   // commands, run before the section's first block
	hook    func(*testing.T, *world) // runs after them
	words   map[string]string        // placeholders, and what the shell reads in their place
}

// aNode are the flags that a node cannot do without, on a machine of the world.
const aNode = ` --ssh-user ops --git-repo https://example.org/rbee.git --install-path /opt/rbee `

// ownKey gives the operator a key of his own, in his agent, that opens all machines.
const ownKey = `
mkdir -m 700 .ssh
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
install -D -m 600 .ssh/id_ed25519.pub "$OPS/.ssh/authorized_keys"
ssh-add -q .ssh/id_ed25519`

var readmeSections = map[string]readmeSection{
	"First minute": {machine: "first"},
	"For real":     {machine: "desktop", prepare: `ln -s /usr/local/bin/rbee-vault rbee-vault`},
	"Unlock methods": {
		prepare: `age-keygen -o laptop.txt; chmod 600 laptop.txt`,
		words:   map[string]string{"age1...": `"$(age-keygen -y laptop.txt)"`},
	},
	"Nodes":                {prepare: ownKey},
	"Jumps, labels, notes": {prepare: `rbee-vault node add bastion --ssh-host 192.0.2.9` + aNode},
	"Coming from a plaintext registry, or from ~/.ssh": {machine: "import", prepare: `
mkdir .rbee .ssh
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
printf 'Host hive-07\n\tHostName 192.0.2.7\n\tUser ops\n' >.ssh/config
sqlite3 .rbee/beehives.db "
CREATE TABLE beehives (node_name TEXT PRIMARY KEY, ssh_host TEXT NOT NULL, ssh_port INTEGER NOT NULL, ssh_user TEXT NOT NULL, ssh_key_path TEXT,
  git_repo_url TEXT NOT NULL, git_branch TEXT NOT NULL, install_path TEXT NOT NULL, last_connected_unix INTEGER, status TEXT NOT NULL, backends TEXT, devices TEXT);
INSERT INTO beehives VALUES ('hive-06', '192.0.2.6', 22, 'ops', '$HOME/.ssh/id_ed25519', 'https://example.org/rbee.git', 'main', '/opt/rbee', NULL, 'unknown', NULL, NULL)"
rbee-vault init --db other.db --recovery-out other.txt`},
	"Export": {machine: "fleet", prepare: ownKey + `
rbee-vault init --recovery-out recovery.txt
rbee-vault node add hive-01 --backend cuda=2 --ssh-host hive-01.example.org` + aNode + `
rbee-vault node add hive-02 --ssh-host 192.0.2.2` + aNode + `
rbee-vault node add hive-03 --ssh-host 192.0.2.3` + aNode + `
rbee-vault node add hive-09 --ssh-host 192.0.2.9` + aNode, hook: makeOldBackup},
	"SSH keys": {prepare: `
rbee-vault node remove hive-09 --yes
rbee-vault host-key scan hive-02 --accept-new`},
	"Host keys": {
		prepare: `ssh-keyscan hive-01.example.org 192.0.2.2 >.ssh/known_hosts 2>/dev/null`,
		words:   map[string]string{"SHA256:...": `"$(ssh-keyscan -t ed25519 hive-01 2>/dev/null | ssh-keygen -lf - | cut -d' ' -f2)"`},
	},
	"Many at once": {prepare: `ssh-keyscan -D hive-01 2>/dev/null | sed 's/^[^ ]*/hive-01/' >records`},
	"Checking nodes": {prepare: `
rbee-vault ssh-key generate --node hive-03
rbee-vault ssh-key install hive-03`},
	// A stand-in, for a test cannot count on a GPU.
	"Running commands": {prepare: `
printf '#!/bin/sh\necho GPU 0: stand-in\n' >/usr/local/bin/nvidia-smi
chmod 755 /usr/local/bin/nvidia-smi
rbee-vault node update hive-01 --backend cuda=1`},
	"ssh, scp, rsync, git": {prepare: `
mkdir bin models
touch file models/one
git init -q "$OPS/repo"`},
	"Backups off the machine": {prepare: `
printf '%s\n' "$MINIO_SECRET" >key.txt; chmod 600 key.txt
mkdir .aws
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$S3_ACCESS_KEY" "$S3_SECRET" >.aws/credentials`},
	"On a blank machine": {
		machine: "blank",
		prepare: `cp "$MACHINES/fleet/recovery.txt" .`,
		words: map[string]string{
			"AWS_ACCESS_KEY_ID=...":     `AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY`,
			"AWS_SECRET_ACCESS_KEY=...": `AWS_SECRET_ACCESS_KEY=$S3_SECRET`,
			"SHA256:...":                `"$(sed -n 's/^# signer: //p' recovery.txt)"`,
		},
	},
	"Drill":    {machine: "fleet"},
	"Headless": {machine: "service"},
	"Defaults": {machine: "fleet"},
	"Output":   {prepare: `rbee-vault node remove hive-03 --yes`},
}

// readmeLine is what is particular about a line that does not just end.
type readmeLine struct {
	exit int    // its exit status: what Ctrl-C ends has one
	keys []keys // what is typed when the terminal shows something
}

type keys struct {
	after   string // a pattern of the terminal's text
	listens string // or an address that answers
	send    string
}

var readmeLines = map[string]readmeLine{
	"ssh -o KnownHostsCommand='/usr/local/bin/rbee-vault host-key list --known-hosts' -o UserKnownHostsFile=none -o GlobalKnownHostsFile=none ops@hive-01.example.org": {keys: atPrompt},
	"rbee-vault check --watch --interval 1m":         {exit: exitInterrupted, keys: []keys{{after: `hive-01 +online`, send: "\x03"}}},
	"rbee-vault ui":                                  {keys: []keys{{after: "hive-01", send: "q"}}},
	"rbee-vault ssh hive-01":                         {keys: atPrompt},
	"rbee-vault ssh -L 8080:localhost:80 -N hive-01": {exit: 255, keys: []keys{{listens: "127.0.0.1:8080", send: "\x03"}}},
	"rbee-vault agent &":                             {keys: []keys{{after: "SSH_AUTH_SOCK=/run/me/rbee-vault/agent.sock; export SSH_AUTH_SOCK;"}}},
	"rbee-vault serve &":                             {keys: []keys{{after: "/run/me/rbee-vault/api.sock"}}},
	"$api -N http://localhost/v2/registry/watch":     {exit: exitInterrupted, keys: []keys{{after: "event", send: "\x03"}}},
}

// atPrompt leaves the shell of a machine.
var atPrompt = []keys{{after: `# $`, send: "exit\n"}}

// readmeAnswers are what an operator answers to a question, by its end. $1 is the pattern's
// first group.
var readmeAnswers = []keys{
	{after: `(?s)AGE-SECRET-KEY-1[0-9A-Z]*([0-9A-Z]{6})\n.*last 6 characters .*: $`, send: "$1\n"},
	{after: `New passphrase .*: $`, send: "planted passphrase of many words\n"},
	{after: `Repeat passphrase: $`, send: "planted passphrase of many words\n"},
	{after: `Fingerprint of the signer .*: $`, send: "$signer\n"},
	{after: `Recovery identity on the sheet .*: $`, send: "$recovery\n"},
	{after: `Rotate now\? \[y/N\] $`, send: "n\n"},
	{after: `\[y/N\] $`, send: "y\n"},
}

// TestREADME runs each command line of README's sh blocks, as it stands there, in the order of
// the page. What nobody has thought of here runs too, and must end with 0.
func TestREADME(t *testing.T) {
	if !inWorld() {
		enterWorld(t)
		return
	}
	w := newWorld(t)
	used := map[string]bool{}
	ran := 0
	blocks, _ := readREADME(t)
	for _, b := range blocks {
		section, known := readmeSections[b.section]
		if known && !used[b.section] {
			w.begin(t, section)
		}
		used[b.section] = true
		ok := t.Run(b.section, func(t *testing.T) {
			s := w.shell(t)
			for _, line := range b.lines {
				key := lineKey(line)
				used[key] = true
				if readmeExcept[key] != "" {
					continue
				}
				for word, value := range section.words {
					used[b.section+word] = used[b.section+word] || strings.Contains(line, word)
					line = strings.ReplaceAll(line, word, value)
				}
				s.run(line, readmeLines[key])
				ran++
			}
			s.end()
		})
		if !ok {
			return // what follows stands on it
		}
	}
	for line := range readmeExcept {
		if !used[line] {
			t.Errorf("README no longer has the line %q", line)
		}
	}
	for line := range readmeLines {
		if !used[line] {
			t.Errorf("README no longer has the line %q", line)
		}
	}
	for name, section := range readmeSections {
		if !used[name] {
			t.Errorf("README no longer has commands in %q", name)
		}
		for word := range section.words {
			if !used[name+word] {
				t.Errorf("README no longer has %q in %q", word, name)
			}
		}
	}
	t.Logf("%d lines ran, %d did not", ran, len(readmeExcept))
}

// readmeBlock is a block of commands.
type readmeBlock struct {
	section string   // the nearest heading above
	lines   []string // those that a backslash continues are one
}

// readREADME returns README's sh blocks, and the text around all blocks.
func readREADME(t *testing.T) (all []readmeBlock, prose string) {
	t.Helper()
	page, err := os.ReadFile(readmePage)
	if err != nil {
		t.Fatal(err)
	}
	var section, fence, line string
	for text := range strings.Lines(string(page)) {
		text = strings.TrimSuffix(text, "\n")
		switch {
		case strings.HasPrefix(text, "```") && fence != "":
			fence = ""
		case strings.HasPrefix(text, "```"):
			fence = text
			if fence == "```sh" {
				all = append(all, readmeBlock{section: section})
			} else if fence != "```go" && fence != "```json" {
				t.Errorf("README has a block %q: one that holds commands begins with ```sh", fence)
			}
		case fence == "" && strings.HasPrefix(text, "#"):
			section = strings.TrimLeft(text, "# ")
		case fence == "":
			prose += text + "\n"
		case fence != "```sh":
		case strings.HasSuffix(text, `\`):
			line += text + "\n"
		case line == "" && (text == "" || strings.HasPrefix(text, "#")):
		default:
			b := &all[len(all)-1]
			b.lines = append(b.lines, line+text)
			line = ""
		}
	}
	if len(all) < 20 {
		t.Fatalf("README has %d blocks of commands", len(all))
	}
	return all, prose
}

var (
	lineComment = regexp.MustCompile(`\s+# .*$`)
	lineBreak   = regexp.MustCompile(`\s*\\\n\s*`)
)

// lineKey is a line as it stands in a table: one line, without its comment.
func lineKey(line string) string {
	return lineComment.ReplaceAllString(lineBreak.ReplaceAllString(line, " "), "")
}

// makeOldBackup makes a backup as of four days ago: the clock is the only thing in the world
// that is not real.
func makeOldBackup(t *testing.T, w *world) {
	f, err := os.Open(w.home + "/recovery.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	identities, err := identity.Parse(t.Context(), f, identity.Options{Name: "recovery"})
	if err != nil {
		t.Fatal(err)
	}
	path := vault.DefaultPath(w.home)
	v, err := vault.Open(t.Context(), vault.Config{Path: path, Identities: identities, Now: func() time.Time { return time.Now().AddDate(0, 0, -4) }})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := backup.Create(t.Context(), v, backup.CreateOptions{Dir: filepath.Join(filepath.Dir(path), "backups")}); err != nil {
		t.Fatal(err)
	}
}

var (
	inlineCode = regexp.MustCompile("`[^`]+`")
	makeTarget = regexp.MustCompile(`\bmake ([a-z-]+)`)
	longFlag   = regexp.MustCompile(`(?:^|\s)--([a-z][a-z-]*)`)
)

// TestREADMEWords: what README names within its text is there: targets of the Makefile, commands
// and flags.
func TestREADMEWords(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	blocks, prose := readREADME(t)
	for _, b := range blocks {
		for _, line := range b.lines {
			if strings.HasPrefix(line, "make ") {
				prose += "`" + lineKey(line) + "`\n"
			}
		}
	}
	root := newRoot(&app{ui: &ui{}})
	names, flags := map[string]bool{"rbee-vault": true, "help": true}, map[string]bool{}
	for _, cmd := range root.Commands() {
		names[cmd.Name()] = true
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.InheritedFlags() // merges them
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	found := 0
	for _, code := range inlineCode.FindAllString(prose, -1) {
		code = strings.ReplaceAll(strings.Trim(code, "`"), "\n", " ")
		words := strings.Fields(code)
		target := makeTarget.FindStringSubmatch(code)
		switch {
		case target != nil && words[0] == "make":
			if !strings.Contains(string(makefile), "\n"+target[1]+":") {
				t.Errorf("README: %q: the Makefile has no such target", code)
			}
		case names[words[0]]:
			if words[0] == "rbee-vault" {
				words = words[1:]
			}
			if len(words) > 0 && words[0] == "help" {
				words = words[1:]
			}
			cmd, args, err := root.Find(words)
			if err != nil || cmd.HasSubCommands() && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				t.Errorf("README: %q: there is no such command", code)
				continue
			}
			for _, m := range longFlag.FindAllStringSubmatch(code, -1) {
				if cmd.Flag(m[1]) == nil {
					t.Errorf("README: %q: %s has no --%s", code, cmd.CommandPath(), m[1])
				}
			}
		case strings.HasPrefix(code, "--"):
			for _, m := range longFlag.FindAllStringSubmatch(code, -1) {
				if !flags[m[1]] {
					t.Errorf("README: %q: no command has it", code)
				}
			}
		default:
			continue
		}
		found++
	}
	if found < 100 {
		t.Errorf("README names %d targets, commands and flags", found)
	}
}
