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

	"github.com/rbee-keeper/rbee-vault/vault"
)

// maxIncludes bounds how deep ssh_config files include each other, as OpenSSH does;
// the other two how many files are read, and how many bytes: two files that include
// each other twice are many.
const (
	maxIncludes    = 16
	maxConfigFiles = 1000
	maxConfigBytes = 16 << 20
	maxConfigLine  = 1 << 20
)

const ruleConfigFiles = "files include each other without end"

// SSHAliases is what a scan of ssh_config files found.
type SSHAliases struct {
	Names   []string  // of Host lines, in their order, each once
	Skipped []Problem // what names no single machine, with the reason: the first hundred
	More    int       // that Skipped does not hold
	// Runs are the lines for which ssh runs a program, or may: Match exec, and an
	// Include of what only ssh can name.
	Runs []Problem

	files int             // that were read
	bytes int64           // of them
	seen  map[string]bool // Names
}

// ScanSSHConfig finds the aliases of an ssh_config file and of those that it
// includes. It reads Host, Match and Include lines alone: what a Host line means, with
// all rules of ssh_config, stock `ssh -G` tells; see [ParseSSHValues]. Patterns and
// Match lines name no machine, and are told. `ssh -G` runs the programs of Match exec:
// whoever does not want that looks at Runs first. home stands for ~.
//
// Files that are no regular ones, too many, too large or too deep are ErrInvalid.
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

// runsProgram reports whether a line is a Match with an exec, in whatever quotes: it
// would rather take a name for one than miss one.
func runsProgram(line string) bool {
	line = strings.NewReplacer(`"`, "", "'", "", `\`, "", "=", " ", "!", " ", ",", " ").Replace(strings.ToLower(line))
	fields := strings.Fields(line)
	return len(fields) > 0 && fields[0] == "match" && slices.Contains(fields, "exec")
}

func (a *SSHAliases) skip(p Problem) { a.Skipped, a.More = addProblem(a.Skipped, a.More, p) }

func (a *SSHAliases) add(name, where string) {
	switch {
	case strings.HasPrefix(name, "!"), strings.ContainsAny(name, "*?"):
		if name != "*" { // which is how defaults are written
			a.skip(Problem{where, strconv.Quote(name) + " is a pattern"})
		}
	case ruleName(name) != "":
		a.skip(Problem{where, fmt.Sprintf("%.80q cannot be a node's name: it %s", name, ruleName(name))})
	case !a.seen[name]:
		a.seen[name] = true
		a.Names = append(a.Names, name)
	}
}

// include follows an Include of a file in dir as ssh does that of a user's file:
// relative to ~/.ssh. What ssh passes over, though it stands beside the file, is told.
func (a *SSHAliases) include(pattern, where, dir, home string, depth int) error {
	given := pattern
	if onlySSHExpands(given) {
		a.Runs, _ = addProblem(a.Runs, 0, Problem{where, "only ssh can tell what it includes"})
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
		if err == nil && !info.IsDir() { // which ssh does not read either
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

// splitConfigLine splits a line of ssh_config into its keyword, lower case, and its
// arguments; quotes hold one together, an equals sign may stand behind the keyword.
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

// ParseSSHValues makes a node of what `ssh -G NAME` prints: its address, port and
// user, and the first of its identity files that is there. The other fields of the
// node are the caller's. What ssh would do and the node cannot is in lost.
func ParseSSHValues(r io.Reader, n Node, home string) (_ Node, lost []string, err error) {
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
		case "identityfile":
			if strings.Contains(value, "%") {
				lost = append(lost, fmt.Sprintf("its IdentityFile is not carried over, as ssh expands what is in it: %.200q", value))
				continue
			}
			path := ExpandPath(home, value)
			if _, err := os.Stat(path); err == nil && n.SSHKeyPath == "" && filepath.IsAbs(path) {
				n.SSHKeyPath = path
			}
		}
	}
	return n, lost, s.Err()
}

// notCarried are settings of ssh without which the node may not be reached, or not be
// the same: a node has no place for them.
var notCarried = map[string]string{
	"proxyjump":       "ProxyJump",
	"proxycommand":    "ProxyCommand",
	"hostkeyalias":    "HostKeyAlias",
	"certificatefile": "CertificateFile",
}

// WriteSSHConfig writes the nodes as ssh_config, for an Include: an alias for each,
// with its host keys asked for by command, and its key's path where one is noted.
// ssh would expand ${ with no way to write it otherwise: a path with it is left out,
// and said so in a comment; a command with it is ErrInvalid.
func WriteSSHConfig(w io.Writer, nodes []Node, knownHostsCommand []string) error {
	var b bytes.Buffer
	b.WriteString("# The nodes of an rbee-vault. Use it by a line at the top of ~/.ssh/config:\n# Include THIS-FILE\n")
	var command []string
	for i, arg := range knownHostsCommand {
		if sshExpands(arg) {
			return fmt.Errorf("%w: %q cannot be written in ssh_config, as ssh expands ${", ErrInvalid, arg)
		}
		if i == 0 { // ssh expands tokens behind the program alone
			command = append(command, quoteConfig(arg))
			continue
		}
		command = append(command, configValue(arg))
	}
	for _, n := range nodes {
		fmt.Fprintf(&b, "\nHost %s\n    HostName %s\n    Port %d\n    User %s\n", n.Name, configValue(n.SSHHost), n.SSHPort, n.SSHUser)
		switch {
		case sshExpands(n.SSHKeyPath):
			fmt.Fprintf(&b, "    # IdentityFile is left out: ssh expands what is in %q\n", n.SSHKeyPath)
		case n.SSHKeyPath != "":
			fmt.Fprintf(&b, "    IdentityFile %s\n    IdentitiesOnly yes\n", configValue(n.SSHKeyPath))
		}
		fmt.Fprintf(&b, "    KnownHostsCommand %s\n    UserKnownHostsFile none\n    GlobalKnownHostsFile none\n    StrictHostKeyChecking yes\n", strings.Join(command, " "))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// sshExpands reports whether ssh takes a value for more than it says: an environment
// variable in ${}, which no quoting hides.
func sshExpands(s string) bool { return strings.Contains(s, "${") }

// configValue quotes a value of ssh_config, in which a percent sign begins a token.
func configValue(s string) string {
	return quoteConfig(strings.ReplaceAll(s, "%", "%%"))
}

func quoteConfig(s string) string {
	if strings.ContainsAny(s, " \t'#\\\"") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}
