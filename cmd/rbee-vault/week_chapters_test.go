package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// desktop makes the vault. What is mistyped at a question costs nothing, and Ctrl-C leaves no trace.
func (w *week) desktop() {
	w.expect(exitUsage, "Did you mean --recovery-out", "init", "--recovery", "r.txt")
	w.expect(exitUsage, "Did you mean init", "innit")
	c := w.on(80, "init")
	identity := c.expect(`AGE-SECRET-KEY-1[0-9A-Z]+`)[0]
	c.expect(`\(Ctrl-C: create no vault\): $`)
	c.send("nonsense\n")
	c.expect(`Those are not its last 6 characters\.\n.*: $`)
	c.send("\x03")
	w.ends(c, exitInterrupted)
	w.expect(exitNoVault, "rbee-vault init", "node", "list")
	if n := w.keyringItems(); n != 0 {
		w.t.Errorf("%d items in the keyring", n)
	}

	recovery, sheet := filepath.Join(w.safe, "recovery.txt"), filepath.Join(w.safe, "sheet.txt")
	c = w.on(80, "init", "--recovery-out", recovery, "--sheet", sheet)
	c.expect(`Move it offline`)
	c.expect(`Print it, keep it in a safe, and delete the\nfile`)
	c.expect(`Next: rbee-vault node add`)
	w.ends(c, exitOK)
	if strings.Contains(c.screen(), "AGE-SECRET-KEY") || strings.Contains(w.read(recovery), identity) {
		w.t.Error("the identity is shown, or is that of the vault that was not made")
	}
	w.expect(exitExists, "choose another path with --db", "init", "--recovery-out", recovery+"2")
	if out := w.must("status"); !regexp.MustCompile(`(?m)^opened by +keyring$`).MatchString(out) {
		w.t.Error(out)
	}

	// A hidden prompt.
	c = w.on(80, "slot", "add", "passphrase")
	c.expect(`New passphrase .*: $`)
	c.send("half a pass\x03")
	w.ends(c, exitInterrupted)
	pdf := filepath.Join(w.safe, "second.pdf")
	c = w.on(80, "slot", "add", "recovery", "--label", "safe", "--sheet", pdf)
	c.expect(`The recovery sheet is in .*second\.pdf`)
	w.ends(c, exitOK)
	if !strings.HasPrefix(w.read(pdf), "%PDF-") || strings.Count(w.must("slot", "list"), "\n") != 3 {
		w.t.Errorf("slots:\n%s", w.must("slot", "list"))
	}
	w.expect(exitOK, "", "doctor")
}

// fifteenNodes fills the vault from what there was before.
func (w *week) fifteenNodes() {
	w.expect(exitNotFound, "Did you mean ssh-user", "config", "set", "ssh-usr", "ops")
	for name, value := range map[string]string{"git-repo": "https://example.org/rbee.git", "install-path": "/opt/rbee", "ssh-user": "ops"} {
		w.must("config", "set", name, value)
	}
	sql := "CREATE TABLE beehives (node_name TEXT PRIMARY KEY, ssh_host TEXT NOT NULL, ssh_port INTEGER NOT NULL DEFAULT 22, ssh_user TEXT NOT NULL, ssh_key_path TEXT, git_repo_url TEXT NOT NULL, git_branch TEXT NOT NULL, install_path TEXT NOT NULL, last_connected_unix INTEGER, status TEXT NOT NULL DEFAULT 'unknown', backends TEXT, devices TEXT);\n"
	lines := ""
	for i := 1; i <= 5; i++ {
		sql += fmt.Sprintf(`INSERT INTO beehives VALUES ('hive-0%[1]d', '192.0.2.%[1]d', 22, 'ops', NULL, 'https://example.org/rbee.git', 'main', '/opt/rbee', 1700000000, 'reachable', '["cuda"]', '{"cuda":%[1]d}');`+"\n", i)
		lines += nodeLine(fmt.Sprintf("spare-%d", i), "203.0.113.1", i)
	}
	w.write("old.sql", sql)
	w.sh("sqlite3 old.db <old.sql && chmod 600 old.db")
	w.expect(exitOK, "still exists, in plaintext", "node", "import", filepath.Join(w.home, "old.db"))
	w.expect(exitExists, `"hive-01", "hive-02"`, "node", "import", filepath.Join(w.home, "old.db"))

	w.sh("mkdir -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_gpu")
	w.write(".ssh/config", `Host bastion
  HostName 198.51.100.1
Host gpu-1 gpu-2
  HostName %h.example.org
  ProxyJump bastion
  IdentityFile ~/.ssh/id_gpu
Host hive-03
  HostName elsewhere.example.org
Host *.internal
  User nobody
`)
	config := filepath.Join(w.home, ".ssh", "config")
	w.expect(exitExists, `"hive-03": already exists`, "node", "import", "--ssh-config", config, "--with-keys")
	w.expect(exitOK, "dry run", "node", "import", "--ssh-config", config, "--with-keys", "--skip-existing", "--dry-run")
	w.expect(exitOK, "existing\thive-03", "node", "import", "--ssh-config", config, "--with-keys", "--skip-existing")
	if out := w.must("node", "list", "--json", "hive-03"); !strings.Contains(out, "192.0.2.3") {
		w.t.Error("the collision has changed the node: " + out)
	}

	fleet := w.write("fleet.jsonl", lines+`{"node_name":"spare-6","ssh_host":"203.0.113.6"}`+"\n"+`{"node_name":"spare-7","shh_host":"h"}`+"\n")
	w.expect(exitPartial, `skipped line 7: invalid: unknown field "shh_host"`, "node", "import", fleet)

	c := w.on(80, "node", "add", "gpu-3", "--label", "rack=3") // the rest is set
	c.expect(`Host name or address \[gpu-3\]: $`)
	c.send("gpu 3\n")
	c.expect(`ssh_host must be .*\nHost name or address \[gpu-3\]: $`)
	c.send("gpu-3.example.org\n")
	c.expect(`added gpu-3\n`)
	w.ends(c, exitOK)
	w.must("node", "update", "gpu-3", "--note", "the one with the broken fan, in the second row from the door, next to the switch")
	w.must("node", "add", "gpu-4", "--ssh-host", "gpu-4.example.org", "--generate-key")
	w.names = w.nodeNames()
	if len(w.names) != 15 {
		w.t.Errorf("%d nodes: %v", len(w.names), w.names)
	}
	c = w.on(80, "node", "add", "gpu-4")
	c.expect(`To change that node: rbee-vault node update gpu-4`)
	w.ends(c, exitExists)
	if strings.Contains(c.screen(), "Host name") {
		w.t.Error("asked about a node that exists")
	}

	for _, slip := range []struct {
		code int
		says string
		args string
	}{
		{exitUsage, "Did you mean node?", "nod list"},
		{exitUsage, "Did you mean list?", "node lst"},
		{exitUsage, "Did you mean --ssh-port", "node update gpu-3 --ssh-prot 22"},
		{exitUsage, "from 1 to 65535", "node update gpu-3 --ssh-port 99999"},
		{exitUsage, "got 1 argument\n", "node rename gpu-3"},
		{exitUsage, "which nodes?", "node remove"},
		{exitNotFound, "Did you mean gpu-3", "node show gpu3"},
		{exitNotFound, "No node's name matches this glob", "node remove mac-*"},
		{exitInvalid, "Did you mean status", "node list --where stauts=online"},
		{exitOK, "Did you mean label", "node list --where lable.rack=3"},
		{exitUsage, "Did you mean name?", "node list --columns nam"},
		{exitInvalid, "there is no field \"nam\"", "node list --format {{.nam}}"},
		{exitInvalid, "jump", "node remove bastion --yes"},
		{exitNotFound, "Did you mean safe", "slot remove saf"},
	} {
		w.expect(slip.code, slip.says, strings.Fields(slip.args)...)
	}
	if got := w.nodeNames(); !slices.Equal(got, w.names) {
		w.t.Errorf("the slips have changed the nodes: %v", got)
	}
}

// nodeLine is a node as a line of JSON, with labels and devices by its number.
func nodeLine(name, host string, i int) string {
	return fmt.Sprintf(`{"node_name":%q,"ssh_host":%q,"ssh_port":22,"ssh_user":"ops","git_repo_url":"https://example.org/rbee.git","git_branch":"main","install_path":"/opt/rbee","backends":["cuda"],"devices":{"cuda":%d},"labels":{"rack":"%d"}}`+"\n", name, host, i%9, i/40)
}

// terminalsAndPipes looks at the fleet by all that an operator looks with.
func (w *week) terminalsAndPipes() {
	for _, width := range []int{40, 60, 200} {
		for _, args := range [][]string{{"node", "list"}, {"node", "list", "--wide"}, {"slot", "list"}, {"audit", "list", "--limit", "5"}} {
			c := w.on(width, append(args, "--no-pager")...)
			w.ends(c, exitOK)
			screen := strings.ReplaceAll(ansi.Strip(c.screen()), "\r", "")
			for _, line := range strings.Split(screen, "\n") {
				if n := utf8.RuneCountInString(line); n > width {
					w.t.Errorf("%v: a line of %d columns on %d: %s", args, n, width, line)
				}
			}
			for _, name := range w.names {
				if args[0] == "node" && !strings.Contains(screen, "\n"+name+" ") {
					w.t.Errorf("%v at %d: %s is missing:\n%s", args, width, name, screen)
				}
			}
		}
		p := startPage(w.t.(*testing.T), width, 24, w.env)
		p.shows("> bastion", "spare-5")
		p.send("/fan\r")
		p.shows("> gpu-3", "!bastion")
		p.send("\r")
		p.shows("the one with the broken")
		p.send("q")
		p.leaves(exitOK)
	}
	c := w.on(200, "node", "list", "--wide")
	c.expect(`(?m)^gpu-3 .*rack=3`)
	w.ends(c, exitOK)

	if got := strings.Fields(w.sh("rbee-vault node list | cut -f1")); !slices.Equal(got, w.names) {
		w.t.Errorf("cut: %v", got)
	}
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(w.sh("rbee-vault node list --json")), "\n") {
		var node struct {
			Name string `json:"node_name"`
		}
		if err := json.Unmarshal([]byte(line), &node); err != nil {
			w.t.Errorf("%v: %s", err, line)
		}
		names = append(names, node.Name)
	}
	if !slices.Equal(names, w.names) {
		w.t.Errorf("JSON: %v", names)
	}
	if got := w.sh(`rbee-vault node list 'gpu-3' --format '{{.node_name}} {{.ssh_host}} {{.labels.rack}} {{.proxy_jump}}'`); got != "gpu-3 gpu-3.example.org 3 \n" {
		w.t.Errorf("--format: %q", got)
	}
	// A full disk is reported, and what was changed before is known to be.
	for _, args := range []string{"node list", "node list --json", "node show gpu-3", "audit export", "node export --format json", "--help"} {
		if out := w.sh("rbee-vault " + args + " >/dev/full; echo code $?"); !strings.Contains(out, "no space left on device") || !strings.HasSuffix(out, "code 1\n") {
			w.t.Errorf("%s: %s", args, out)
		}
	}
	if out := w.sh("rbee-vault node add late --ssh-host 192.0.2.99 --json >/dev/full; echo code $?"); !strings.Contains(out, "Output is lost") || !strings.HasSuffix(out, "code 1\n") {
		w.t.Error(out)
	}
	w.must("node", "remove", "late", "--yes")
}

// twoThousand is the fleet of next year, for a day.
func (w *week) twoThousand() {
	var lines strings.Builder
	for i := range 2000 {
		lines.WriteString(nodeLine(fmt.Sprintf("rack%02d-n%d", i/40, i%40), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), i))
	}
	fleet := w.write("big.jsonl", lines.String())
	c := w.on(80, "node", "import", fleet)
	c.expect(`added\s+rack49-n39\n2000 added\n`)
	w.ends(c, exitOK)
	w.expect(exitExists, `"rack00-n9", and 1990 more: already exists`, "node", "import", fleet)
	w.expect(exitOK, "unchanged\track49-n39", "node", "import", fleet, "--replace")

	c = w.on(80, "node", "list")
	c.expect(`NAME .*HOST`)
	c.send("/rack30\n")
	c.expect(`10\.0\.4\.223 `) // rack30-n22; the match is highlighted
	c.send("q")
	w.ends(c, exitOK)
	if strings.Contains(c.screen(), "ESC") {
		w.t.Error("the pager shows colours as text")
	}
	if out := w.sh("rbee-vault node list --json | head -1 | cut -c1-23; echo ${PIPESTATUS[0]}"); out != `{"node_name":"bastion",`+"\n141\n" {
		w.t.Errorf("a closed pipe: %q", out)
	}
	if got := len(strings.Fields(w.must("node", "list", "--where", "label.rack=7,cuda>=4", "--columns", "name"))); got != 21 {
		w.t.Errorf("%d nodes of rack 7 with four devices or more", got)
	}
	// A shell gets the names, or within 50 ms none: here it may be another time.
	waitFor(w.t, "the names of a rack", func() bool {
		return strings.Count(w.must("__complete", "node", "show", "rack07-"), "rack07-n") == 40
	})

	for _, answer := range []struct {
		number string
		code   int
		left   int
	}{{"y\n", exitError, 2015}, {"399\n", exitError, 2015}, {"\x03", exitInterrupted, 2015}, {"400\n", exitOK, 1615}} {
		c = w.on(80, "node", "remove", "rack4*")
		c.expect(`Remove 400 nodes \(rack40-n0, .* more\)\? Type 400 to go on: $`)
		c.send(answer.number)
		w.ends(c, answer.code)
		if n := len(w.nodeNames()); n != answer.left {
			w.t.Errorf("%q: %d nodes", answer.number, n)
		}
	}
	w.expect(exitUsage, "--yes", "node", "remove", "rack*")
	w.must("node", "remove", "rack*", "--yes")
	if got := w.nodeNames(); !slices.Equal(got, w.names) {
		w.t.Errorf("%v", got)
	}
}

// secondOperator comes, works and goes. What can still be read afterwards is said.
func (w *week) secondOperator() {
	second := filepath.Join(w.safe, "second.txt")
	recipient := strings.TrimSpace(w.sh("age-keygen -o " + second + " 2>/dev/null; age-keygen -y " + second))
	w.must("backup")
	w.expect(exitOK, "The vault now opens by recipient", "slot", "add", "recipient", recipient, "--label", "second-laptop", "--for", "ops@example.org")
	w.expect(exitExists, "already has a slot", "slot", "add", "recipient", recipient)
	w.must("backup")

	w.expect(exitUntrusted, "nothing vouches", "node", "list", "--identity", second)
	for _, row := range []struct {
		answer string
		code   int
	}{{"n", exitUntrusted}, {"y", exitOK}} {
		c := w.on(80, "node", "label", "gpu-1", "rack=9", "--identity", second)
		c.expect(`signer +SHA256:`)
		c.expect(`Is it your vault\? \[y/N\] $`)
		c.send(row.answer + "\n")
		w.ends(c, row.code)
	}
	w.expect(exitOK, "", "node", "label", "gpu-1", "role=test", "--identity", second) // asked once
	for _, action := range []string{"node.update", "slot.vouch"} {
		if out := w.must("audit", "list", "--actor", "ops@", "--action", action, "--columns", "who,subject"); !strings.Contains(out, ", ops@example.org (by slot ") {
			w.t.Errorf("%s: %s", action, out)
		}
	}

	c := w.on(80, "slot", "remove", "second-laptop")
	c.expect(`(?s)Remove recipient.*\[y/N\] $`)
	c.send("y\n")
	c.expect(`It still opens these backups: 2\.`)
	c.expect(`Rotate now\? \[y/N\] $`)
	w.expect(exitWrongKey, "opens none of the vault's", "node", "list", "--identity", second) // meanwhile
	c.send("y\n")
	c.expect(`The vault has a new signer`)
	w.ends(c, exitOK)
	w.must("status", "--sheet", filepath.Join(w.safe, "signer.txt"))
	w.must("backup")
	w.expect(exitWrongKey, "opens none of the vault's", "node", "list", "--identity", second)

	signer := filepath.Join(w.safe, "sheet.txt")
	for sequence, code := range map[string]int{"000001": exitWrongKey, "000002": exitOK, "000003": exitWrongKey} {
		files, err := filepath.Glob(filepath.Join(w.home, ".rbee", "backups", "*-"+sequence+".tar.gz.age"))
		if err != nil || len(files) != 1 {
			w.t.Fatal(files, err)
		}
		w.expect(code, "", "backup", "verify", files[0], "--identity", second, "--signer", signer)
	}
	if out := w.must("backup", "recipients"); !regexp.MustCompile(`(?m)^second-laptop\tno\t2\t` + recipient + `$`).MatchString(out) {
		w.t.Error(out)
	}
}

// rotation: programs of the vault go on through it, and a forgotten question is named.
func (w *week) rotation() {
	agent := w.startAgent()
	server, at := w.startServe()
	forgotten := w.on(80, "node", "remove", "gpu-4")
	forgotten.expect(`Remove node gpu-4.*\[y/N\] $`)
	pid := forgotten.cmd.Process.Pid
	w.expect(exitLocked, fmt.Sprintf("%d", pid), "rotate", "--wait", "1s")
	forgotten.send("n\n")
	w.ends(forgotten, exitError)

	before := w.must("node", "list", "--json")
	w.expect(exitOK, "generation  3", "rotate", "--sheet", filepath.Join(w.safe, "signer3.txt"))
	request, err := http.NewRequest("PATCH", "http://localhost/v2/registry/beehives/spare-1", strings.NewReader(`{"note": "by the keeper"}`))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := over(at.Socket).Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		w.t.Error(answer.Status)
	}
	if out := w.must("node", "list", "spare-1", "--json"); !strings.Contains(out, "by the keeper") {
		w.t.Error(out)
	}
	w.expect(exitOK, "The agent answers", "agent", "status")
	w.must("node", "update", "spare-1", "--note", "")
	if after := w.must("node", "list", "--json"); after != before {
		w.t.Errorf("the rotation has changed the nodes:\n%s\n%s", before, after)
	}
	for _, p := range []*process{agent, server} {
		p.cmd.Process.Signal(os.Interrupt)
		if code := p.ends(); code != exitInterrupted && code != exitOK || strings.Contains(p.stderr.String(), "does not open") {
			w.t.Errorf("exit code %d:\n%s", code, &p.stderr)
		}
	}
	w.expect(exitOK, "", "doctor")
}

// lostLaptop: home and keyring are gone. There is paper, and the newest backup.
func (w *week) lostLaptop() {
	before := w.must("node", "list", "--json")
	path := strings.TrimSpace(w.must("backup"))
	file := filepath.Join(w.safe, filepath.Base(path))
	if err := os.WriteFile(file, []byte(w.read(path)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.RemoveAll(w.home); err != nil {
		w.t.Fatal(err)
	}
	w.session.RestartEmpty(w.all)
	w.session.Restart(w.all)
	w.moveTo(w.all.TempDir())
	w.expect(exitNoVault, "rbee-vault restore FILE", "node", "list")

	sheet := w.read(filepath.Join(w.safe, "sheet.txt"))
	identity := regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]+`).FindString(sheet)
	oldSigner := regexp.MustCompile(`SHA256:\S{43}`).FindString(sheet)
	newSigner := regexp.MustCompile(`SHA256:\S{43}`).FindString(w.read(filepath.Join(w.safe, "signer3.txt")))
	typed := strings.ToLower(identity)
	slip, at := []byte(typed), 30
	for slip[at] == slip[at+1] {
		at++
	}
	slip[at], slip[at+1] = slip[at+1], slip[at]
	for _, row := range []struct {
		signer string
		code   int
		says   string
	}{
		{"SHA256:" + strings.Repeat("A", 43), exitUntrusted, `signed by|signer`},
		{oldSigner, exitUntrusted, `add\s+--accept-successor`},
		{newSigner, exitOK, `This is a new vault with a new signer`},
	} {
		c := w.on(200, "restore", file, "--sheet")
		c.expect(`Recovery identity on the sheet .*: $`)
		c.send(string(slip) + "\n")
		c.expect(`typing error: .*\nRecovery identity on the sheet .*: $`)
		c.send(typed + "\n")
		c.expect(`Fingerprint of the signer on your sheet .*: $`)
		c.send(row.signer[:20] + "\n")
		c.expect(`43 characters; this has 13\.\nFingerprint of the signer on your sheet .*: $`)
		c.send(row.signer + "\n")
		c.expect(row.says)
		w.ends(c, row.code)
		if strings.Contains(strings.ToLower(c.screen()), typed[:40]) {
			w.t.Error("the identity is on the screen")
		}
	}
	if after := w.must("node", "list", "--json"); after != before { // by the keyring
		w.t.Errorf("another registry:\n%s\n%s", before, after)
	}
	w.expect(exitOK, "this was a dry run", "restore", file, "--identity", filepath.Join(w.safe, "recovery.txt"), "--signer", newSigner, "--replace", "--dry-run", "--no-keyring", "--yes")
	w.must("status", "--sheet", filepath.Join(w.safe, "restored.txt"))
	w.must("backup")
	w.expect(exitOK, "proven in", "backup", "drill", "--identity", filepath.Join(w.safe, "recovery.txt"))
	w.expect(exitOK, "", "backup", "status")
	w.expect(exitOK, "", "doctor")
}

// headless is a server without D-Bus, whose cron makes the backups. Nobody is there to be asked.
func (w *week) headless() {
	desktop, env := w.home, w.env
	defer func() { w.home, w.env = desktop, env }()
	w.moveTo(w.all.TempDir())
	w.env = append(slices.Clone(w.env), "DBUS_SESSION_BUS_ADDRESS=")
	recovery := filepath.Join(w.safe, "recovery.txt")
	file := strings.TrimSpace(w.sh("ls " + filepath.Join(w.safe, "*.tar.gz.age")))
	w.env = append(w.env, "RECOVERY="+recovery, "BACKUP="+file, "SIGNER="+filepath.Join(w.safe, "signer3.txt"))

	says := func(want int, message, script string) {
		w.t.Helper()
		out := w.sh("(" + script + ") </dev/null; echo code $?")
		if !strings.Contains(out, message) || !strings.HasSuffix(out, fmt.Sprintf("code %d\n", want)) {
			w.t.Errorf("%s: want %d with %q:\n%s", script, want, message, out)
		}
	}
	says(exitUsage, "--recovery-out FILE", "rbee-vault init")
	says(exitKeyring, "rbee-vault init --no-keyring", "rbee-vault init --recovery-out none.txt")
	says(exitWrongKey, "--identity FILE", "rbee-vault restore $BACKUP --no-keyring")
	says(exitInvalid, "fd:3 is not an open descriptor", "rbee-vault restore $BACKUP --no-keyring --identity fd:3 3>&-")
	says(exitKeyring, "--no-keyring", "rbee-vault restore $BACKUP --signer $SIGNER --identity fd:3 3<$RECOVERY")
	says(exitUntrusted, "--signer SHA256:", "rbee-vault restore $BACKUP --no-keyring --identity fd:3 3<$RECOVERY")
	says(exitOK, "opens by", "rbee-vault restore $BACKUP --no-keyring --signer $SIGNER --identity fd:3 3<$RECOVERY")
	says(exitWrongKey, "--identity FILE", "rbee-vault node list --no-input")
	says(exitOK, "The vault now opens by credential", "mkdir -m 700 cred; rbee-vault slot add credential --label cron --out cred/rbee-vault --identity fd:3 3<$RECOVERY")
	w.env = append(w.env, "CREDENTIALS_DIRECTORY="+filepath.Join(w.home, "cred"))
	signer := regexp.MustCompile(`SHA256:\S{43}`).FindString(w.must("status"))
	if signer == "" {
		w.t.Error("no signer")
	}
	says(exitUsage, "--yes", "rbee-vault node remove spare-1")
	says(exitUsage, "--ssh-host", "rbee-vault node add spare-9")

	const cron, monitor = "rbee-vault backup --if-changed --no-input", "rbee-vault backup status"
	says(exitPartial, "there is no backup yet", monitor)
	says(exitOK, "mkdir", "mkdir -v usb nas; rbee-vault backup target add usb dir:$PWD/usb; rbee-vault backup target add nas dir:$PWD/nas")
	says(exitOK, "usb/", cron)
	says(exitOK, "Nothing has changed since backup 1", cron)
	says(exitPartial, "backup drill --identity FILE, or --sheet", monitor)
	says(exitOK, "proven", "rbee-vault backup drill --identity $RECOVERY")
	says(exitOK, "problem         none", monitor)

	// One target fails, then both. Where they are back, the alarm ends, although nothing is new.
	says(exitPartial, "usb", "mv usb away; rbee-vault node label spare-1 rack=7; "+cron)
	says(exitPartial, "was not written to usb", monitor)
	says(exitNotFound, "Is its disk mounted?", "mv nas away-nas; rbee-vault node label spare-1 rack=8; "+cron)
	says(exitPartial, "was not written to nas", monitor)
	says(exitOK, "usb/", "mv away usb; mv away-nas nas; "+cron)
	says(exitPartial, "restore", "rm nas/*; "+monitor) // somebody tidies up
	says(exitOK, "nas/", cron)
	says(exitOK, "problem         none", monitor)
	says(exitNotFound, "directory", "mv nas away; mv usb away-usb; "+cron)
	says(exitPartial, "was not written to", monitor)
	says(exitOK, "usb/", "mv away nas; mv away-usb usb; "+cron) // where one failed, the next run makes a new one
	says(exitOK, "Nothing has changed", cron)
	says(exitOK, "problem         none", monitor)
	if out := w.sh("rbee-vault backup status --json"); !strings.Contains(out, `"ok":true,"problems":[]`) {
		w.t.Error(out)
	}
	says(exitOK, "", "rbee-vault destroy --yes")
}

// leaving takes everything along, and leaves nothing but what it names.
func (w *week) leaving() {
	w.sh("mkdir -m 700 out")
	w.must("node", "export", "--format", "json", "-o", filepath.Join(w.home, "out", "nodes.jsonl"))
	if got := strings.Count(w.read(filepath.Join(w.home, "out", "nodes.jsonl")), `"node_name"`); got != 15 {
		w.t.Errorf("%d nodes exported", got)
	}
	keys := strings.Split(strings.TrimSpace(w.must("ssh-key", "list", "--columns", "fingerprint")), "\n")
	if len(keys) < 2 {
		w.t.Errorf("keys: %v", keys)
	}
	for i, key := range keys {
		name := filepath.Join(w.home, "out", fmt.Sprintf("key%d", i))
		c := w.on(200, "ssh-key", "export", key, "-o", name)
		c.expect(`without a passphrase\? \[y/N\] $`)
		c.send("y\n")
		w.ends(c, exitOK)
		if out := w.sh("ssh-keygen -l -f " + name); !strings.Contains(out, key) {
			w.t.Errorf("%s is %s", key, out)
		}
	}
	w.sh("rbee-vault audit export >out/audit.jsonl")
	if audit := w.read(filepath.Join(w.home, "out", "audit.jsonl")); !strings.Contains(audit, "ops@example.org (by slot") || strings.Count(audit, `"ssh-key.export"`) != len(keys) {
		w.t.Error("the log lacks what was done")
	}
	if err := os.Rename(filepath.Join(w.home, "out"), filepath.Join(w.safe, "out")); err != nil {
		w.t.Fatal(err)
	}

	if w.keyringItems() == 0 {
		w.t.Error("nothing is in the keyring")
	}
	w.expect(exitOK, "Nothing was removed", "destroy", "--dry-run")
	w.expect(exitUsage, "--yes", "destroy")
	for _, row := range []struct {
		answer string
		code   int
	}{{"y\n", exitError}, {"\x03", exitInterrupted}, {"beehives.db\n", exitOK}} {
		c := w.on(200, "destroy")
		c.expect(`Type beehives\.db to destroy it: $`)
		c.send(row.answer)
		w.ends(c, row.code)
		if row.code == exitOK {
			c.expect(`Backups stay: 1 in .*/\.rbee/backups\n`)
			w.checkLeft(c)
		} else {
			w.must("node", "list")
		}
	}
	if n := w.keyringItems(); n != 0 {
		w.t.Errorf("%d items are left in the keyring", n)
	}
	w.expect(exitNoVault, "rbee-vault init", "node", "list")
}
