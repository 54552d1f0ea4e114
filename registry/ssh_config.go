package registry

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// Limits of a scan. Files that include each other twice are read very often, so the
// depth alone is not enough.
const (
	maxIncludes    = 16 // depth, as in OpenSSH
	maxConfigFiles = 1000
	maxConfigBytes = 16 << 20 // of all files
	maxConfigLine  = 1 << 20
)

const ruleConfigFiles = "too many files, or files that include each other"

// SSHAliases is what a scan of ssh_config files found.
type SSHAliases struct {
	Names   []string  // aliases on Host lines, in their order, each once
	Skipped []Problem // lines and names that are not an alias, with the reason: the first hundred
	More    int       // how many more were skipped
	// Runs are the lines for which ssh runs a program or may run one: Match exec, and
	// an Include with a pattern that only ssh can expand. It has the first hundred.
	Runs []Problem

	files int             // files read
	bytes int64           // bytes read
	seen  map[string]bool // the names in Names
}

// ScanSSHConfig finds the aliases in an ssh_config file and in the files that it
// includes. It reads only Host, Match and Include lines. The settings of an alias come
// from `ssh -G ALIAS`; see [ParseSSHValues]. That runs the programs of Match exec, so
// a caller checks Runs before. Patterns and Match lines are skipped and reported. home
// replaces ~.
//
// A file that is not a regular file is ErrInvalid, and so are too many files, bytes or
// levels of Include.
func ScanSSHConfig(path, home string) (SSHAliases, error) {
	found := SSHAliases{seen: map[string]bool{}}
	err := found.scan(path, home, maxIncludes)
	return found, err
}

// scan scans a file. depth is how deep its Include lines may nest.
func (a *SSHAliases) scan(file, home string, depth int) error {
	f, err := openRegular(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if a.files++; a.files > maxConfigFiles {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, file, ruleConfigFiles)
	}
	for line, err := range eachLine(f, maxConfigLine, maxConfigBytes-a.bytes) {
		if err != nil {
			return fmt.Errorf("read %q: %w", file, err)
		}
		where := fmt.Sprintf("%s, %s", file, line.where())
		if line.long {
			return fmt.Errorf("%w: %s is too long", ErrInvalid, where)
		}
		a.bytes += int64(len(line.text)) + 1
		text := string(line.text)
		if runsProgram(text) {
			a.Runs, _ = addProblem(a.Runs, 0, Problem{where, "ssh runs a program for it: Match exec"})
		}
		keyword, args := splitConfigLine(text)
		switch keyword {
		case "host":
			for _, name := range args {
				a.add(name, where)
			}
		case "match":
			a.skip(Problem{where, "a Match line names no machine"})
		case "include":
			if depth == 0 {
				return fmt.Errorf("%w: %s: %s", ErrInvalid, where, ruleConfigFiles)
			}
			for _, pattern := range args {
				if err := a.include(pattern, where, filepath.Dir(file), home, depth-1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// openRegular opens a regular file that is not part of an open vault.
func openRegular(file string) (*os.File, error) {
	// Before it is opened: opening a FIFO would wait for a writer.
	if info, err := os.Stat(file); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is not a regular file", ErrInvalid, file)
	}
	if err := vault.CheckNotOpen(file); err != nil {
		return nil, err
	}
	return os.Open(file)
}

// runsProgram reports whether a line is a Match with an exec, in any quotes. It may
// report a line that has none, but must not miss one.
func runsProgram(line string) bool {
	line = strings.NewReplacer(`"`, "", "'", "", `\`, "", "=", " ", "!", " ", ",", " ").Replace(strings.ToLower(line))
	fields := strings.Fields(line)
	return len(fields) > 0 && fields[0] == "match" && slices.Contains(fields, "exec")
}

func (a *SSHAliases) skip(p Problem) { a.Skipped, a.More = addProblem(a.Skipped, a.More, p) }

// add adds an argument of a Host line, if it is an alias that can be a node's name.
func (a *SSHAliases) add(name, where string) {
	switch {
	case strings.HasPrefix(name, "!"), strings.ContainsAny(name, "*?"):
		if name != "*" { // Host * has the defaults
			a.skip(Problem{where, strconv.Quote(name) + " is a pattern"})
		}
	case ruleName(name) != "":
		a.skip(Problem{where, fmt.Sprintf("%.80q cannot be a node's name: it %s", name, ruleName(name))})
	case !a.seen[name]:
		a.seen[name] = true
		a.Names = append(a.Names, name)
	}
}

// include scans the files of an Include line. Like ssh for a user's file, it looks for
// a relative pattern in ~/.ssh. dir is the directory of the including file: a file there
// that ssh ignores is reported.
func (a *SSHAliases) include(pattern, where, dir, home string, depth int) error {
	given := pattern
	if onlySSHExpands(given) {
		a.Runs, _ = addProblem(a.Runs, 0, Problem{where, "only ssh knows what it includes"})
	}
	pattern = ExpandPath(home, pattern)
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(home, ".ssh", pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("%w: %s: Include %.80q", ErrInvalid, where, given)
	}
	if beside, err := filepath.Glob(filepath.Join(dir, given)); err == nil && len(files) == 0 && len(beside) > 0 {
		a.skip(Problem{where, fmt.Sprintf("ssh looks for Include %.80q in ~/.ssh, where it is not", given)})
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err == nil && !info.IsDir() { // ssh ignores directories too
			err = a.scan(file, home, depth)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// onlySSHExpands reports whether the pattern of an Include has tokens, variables or
// another user's home in it.
func onlySSHExpands(pattern string) bool {
	return strings.ContainsAny(pattern, "%$") || strings.HasPrefix(pattern, "~") && pattern != "~" && !strings.HasPrefix(pattern, "~/")
}

// splitConfigLine splits a line of ssh_config into its keyword, in lower case, and its
// arguments. An argument may be in double quotes. An equals sign may follow the keyword.
func splitConfigLine(line string) (keyword string, args []string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", nil
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		return strings.ToLower(line), nil
	}
	keyword, line = strings.ToLower(line[:end]), strings.TrimLeft(line[end:], " \t")
	line = strings.TrimLeft(strings.TrimPrefix(line, "="), " \t")
	for line != "" && line[0] != '#' {
		var arg string
		if rest, ok := strings.CutPrefix(line, `"`); ok {
			arg, line, _ = strings.Cut(rest, `"`)
		} else if end := strings.IndexAny(line, " \t"); end >= 0 {
			arg, line = line[:end], line[end:]
		} else {
			arg, line = line, ""
		}
		args = append(args, arg)
		line = strings.TrimLeft(line, " \t")
	}
	return keyword, args
}

// ParseSSHValues reads the output of `ssh -G NAME`. It returns n with the address, the
// port, the user, the host that it jumps through, and the first identity file that exists;
// n.Name is the alias, for the tokens in an identity file. lost describes the settings that a node cannot have; a jump through several hosts, or
// with a user or port of its own, is one of them.
func ParseSSHValues(r io.Reader, n Node, home string) (_ Node, lost []string, err error) {
	var identities []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxConfigLine)
	for s.Scan() {
		keyword, value, _ := strings.Cut(s.Text(), " ")
		if what, ok := notCarried[keyword]; ok && value != "none" {
			lost = append(lost, fmt.Sprintf("its %s is not carried over: %.200q", what, value))
		}
		switch keyword {
		case "hostname":
			n.SSHHost = value
		case "user":
			n.SSHUser = value
		case "port":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return n, lost, &FieldError{Field: "ssh_port", Rule: rulePort}
			}
			n.SSHPort = uint16(port)
		case "proxyjump":
			switch {
			case value == "none":
			case ruleName(value) == "":
				n.ProxyJump = value
			default:
				lost = append(lost, fmt.Sprintf("its ProxyJump is not carried over, as it is not one alias: %.200q", value))
			}
		case "identityfile":
			identities = append(identities, value)
		}
	}
	for _, value := range identities { // after the values that their tokens stand for
		path, ok := expandTokens(value, n, home)
		if !ok {
			lost = append(lost, fmt.Sprintf("its IdentityFile is not carried over, as only ssh knows what it stands for: %.200q", value))
			continue
		}
		if _, err := os.Stat(path); err == nil && n.SSHKeyPath == "" && filepath.IsAbs(path) {
			n.SSHKeyPath = path
		}
	}
	return n, lost, s.Err()
}

// expandTokens expands ~ and the tokens %h, %n, %p, %r, %d and %% of a path, as ssh
// does for the node. It reports false where there is anything else that ssh expands.
func expandTokens(value string, n Node, home string) (path string, ok bool) {
	if sshExpands(value) || strings.HasPrefix(value, "~") && value != "~" && !strings.HasPrefix(value, "~/") {
		return "", false
	}
	tokens := map[byte]string{
		'h': n.SSHHost,
		'n': n.Name,
		'p': strconv.Itoa(int(n.SSHPort)),
		'r': n.SSHUser,
		'd': home,
		'%': "%",
	}
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] != '%' {
			b.WriteByte(value[i])
			continue
		}
		i++
		if i == len(value) || tokens[value[i]] == "" {
			return "", false
		}
		b.WriteString(tokens[value[i]])
	}
	return ExpandPath(home, b.String()), true
}

// ParseSSHKnownHosts reads the output of `ssh -G NAME` and returns the files that
// UserKnownHostsFile names. n is what [ParseSSHValues] returned. A file whose path only ssh
// can expand is in lost.
func ParseSSHKnownHosts(r io.Reader, n Node, home string) (files, lost []string, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxConfigLine)
	for s.Scan() {
		value, ok := strings.CutPrefix(s.Text(), "userknownhostsfile ")
		if !ok || value == "none" {
			continue
		}
		for _, value := range strings.Fields(value) {
			file, ok := expandTokens(value, n, home)
			if !ok || !filepath.IsAbs(file) {
				lost = append(lost, fmt.Sprintf("its UserKnownHostsFile is not read, as only ssh knows what it stands for: %.200q", value))
				continue
			}
			files = append(files, file)
		}
	}
	return files, lost, s.Err()
}

// notCarried are the settings of ssh that a node cannot have, but may need to be
// reached or recognised.
var notCarried = map[string]string{
	"proxycommand":    "ProxyCommand",
	"hostkeyalias":    "HostKeyAlias",
	"certificatefile": "CertificateFile",
}

// SSHConfigHeader begins each file that [WriteSSHConfig] writes.
const SSHConfigHeader = "# The nodes of an rbee-vault. Use it by a line at the top of ~/.ssh/config:\n"

// SSHHost is a node in an ssh_config.
type SSHHost struct {
	Node
	// HostKeys are the pinned keys. Their types are the only ones that ssh accepts.
	HostKeys []HostKey
	// PublicKey is the file of the public half of its key in the vault. Empty: none is named,
	// and ssh asks the agent which keys there are.
	PublicKey string
	// InVault says that its key is in the vault.
	InVault bool
	// Lacks says why ssh could not log in. The node is then a comment. Empty: it has a block.
	Lacks string
}

// SSHConfigOptions are the values that all nodes share.
type SSHConfigOptions struct {
	// KnownHostsCommand prints the host keys.
	KnownHostsCommand []string
	// Agent is the socket of the agent that has the vault's keys. Empty: it is not named.
	Agent string
}

// WriteSSHConfig writes the nodes as an ssh_config file for an Include. Each node is an
// alias, with its key and its jump if it has them; the nodes that it jumps through must be
// among the nodes. ssh gets the host keys from the command.
//
// ssh expands ${ everywhere, and no quoting prevents it. A key's path with ${ is left
// out, with a comment in the file. Another path with ${ is ErrInvalid.
func WriteSSHConfig(w io.Writer, hosts []SSHHost, opts SSHConfigOptions) error {
	var b bytes.Buffer
	b.WriteString(SSHConfigHeader + "# Include THIS-FILE\n")
	var command []string
	for i, arg := range opts.KnownHostsCommand {
		value, ok := SSHConfigValue(arg)
		if !ok {
			return errExpands(arg)
		}
		if i == 0 { // ssh expands % in the arguments, but not in the program
			value = quoteConfig(arg)
		}
		command = append(command, value)
	}
	agent, ok := SSHConfigValue(opts.Agent)
	if !ok {
		return errExpands(opts.Agent)
	}
	for _, h := range hosts {
		if h.Lacks != "" {
			fmt.Fprintf(&b, "\n# %s is left out: %s\n", h.Name, h.Lacks)
			continue
		}
		if sshExpands(h.PublicKey) {
			return errExpands(h.PublicKey)
		}
		fmt.Fprintf(&b, "\nHost %s\n    HostName %s\n    Port %d\n    User %s\n", h.Name, configValue(h.SSHHost), h.SSHPort, h.SSHUser)
		jump := "none"
		if h.ProxyJump != "" {
			jump = h.ProxyJump
		}
		fmt.Fprintf(&b, "    ProxyJump %s\n    RemoteCommand none\n    ForwardAgent no\n", jump)
		h.writeKey(&b, agent)
		if len(h.HostKeys) > 0 {
			fmt.Fprintf(&b, "    HostKeyAlgorithms %s\n", strings.Join(HostKeyAlgorithms(h.HostKeys), ","))
		}
		fmt.Fprintf(&b, "    KnownHostsCommand %s\n    UserKnownHostsFile none\n    GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n", strings.Join(command, " "))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writeKey writes which key ssh offers, and who signs with it.
func (h SSHHost) writeKey(b *bytes.Buffer, agent string) {
	if h.InVault && agent != "" {
		fmt.Fprintf(b, "    IdentityAgent %s\n", agent)
	}
	switch {
	case h.PublicKey != "":
		fmt.Fprintf(b, "    IdentityFile %s\n    IdentitiesOnly yes\n", configValue(h.PublicKey))
	case h.InVault: // the agent shows no other key to this host
		fmt.Fprintf(b, "    IdentityFile none\n    IdentitiesOnly no\n")
	case sshExpands(h.SSHKeyPath):
		fmt.Fprintf(b, "    # IdentityFile is left out: ssh expands what is in %q\n", h.SSHKeyPath)
	case h.SSHKeyPath != "":
		fmt.Fprintf(b, "    IdentityFile %s\n    IdentitiesOnly yes\n", configValue(h.SSHKeyPath))
	}
}

func errExpands(s string) error {
	return fmt.Errorf("%w: %q cannot be written in ssh_config, as ssh expands ${", ErrInvalid, s)
}

// HostKeyAlgorithms returns the algorithms by which a server proves that it has one of the
// keys. Certificates are not among them: a pin is a plain key.
func HostKeyAlgorithms(keys []HostKey) []string {
	var list []string
	for _, k := range keys {
		algorithms := []string{k.Type}
		if k.Type == ssh.KeyAlgoRSA {
			algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, a := range algorithms {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

// SSHConfigValue returns a text as a value of ssh_config that ssh reads back unchanged. It
// reports false where there is no such value, because ssh would expand ${ in it.
func SSHConfigValue(s string) (value string, ok bool) {
	return configValue(s), !sshExpands(s)
}

// sshExpands reports whether ssh would expand an environment variable in a value.
func sshExpands(s string) bool { return strings.Contains(s, "${") }

// configValue quotes a value of ssh_config, where a percent sign begins a token.
func configValue(s string) string {
	return quoteConfig(strings.ReplaceAll(s, "%", "%%"))
}

func quoteConfig(s string) string {
	if strings.ContainsAny(s, " \t'#\\\"") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}
