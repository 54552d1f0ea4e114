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
)

// maxIncludes bounds how deep ssh_config files include each other, as OpenSSH does.
const maxIncludes = 16

// SSHAliases is what a scan of ssh_config files found.
type SSHAliases struct {
	Names   []string  // of Host lines, in their order, each once
	Skipped []Problem // what names no single machine, with the reason
}

// ScanSSHConfig finds the aliases of an ssh_config file and of those that it
// includes. It reads Host and Include lines alone: what a Host line means, with all
// rules of ssh_config, stock `ssh -G` tells; see [ParseSSHValues]. Patterns and Match
// lines name no machine, and are told. home stands for ~.
func ScanSSHConfig(path, home string) (SSHAliases, error) {
	var found SSHAliases
	err := found.scan(path, home, maxIncludes)
	return found, err
}

func (a *SSHAliases) scan(file, home string, depth int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		where := fmt.Sprintf("%s, line %d", file, n)
		keyword, args := splitConfigLine(s.Text())
		switch keyword {
		case "host":
			for _, name := range args {
				a.add(name, where)
			}
		case "match":
			a.Skipped = append(a.Skipped, Problem{where, "a Match line names no machine"})
		case "include":
			if depth == 0 {
				return fmt.Errorf("%w: %s: files include each other without end", ErrInvalid, where)
			}
			for _, pattern := range args {
				if err := a.include(pattern, where, filepath.Dir(file), home, depth-1); err != nil {
					return err
				}
			}
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read %q: %w", file, err)
	}
	return nil
}

func (a *SSHAliases) add(name, where string) {
	switch {
	case strings.HasPrefix(name, "!"), strings.ContainsAny(name, "*?"):
		if name != "*" { // which is how defaults are written
			a.Skipped = append(a.Skipped, Problem{where, strconv.Quote(name) + " is a pattern"})
		}
	case ruleName(name) != "":
		a.Skipped = append(a.Skipped, Problem{where, fmt.Sprintf("%.80q cannot be a node's name: it %s", name, ruleName(name))})
	case !slices.Contains(a.Names, name):
		a.Names = append(a.Names, name)
	}
}

// include follows an Include of a file in dir as ssh does that of a user's file:
// relative to ~/.ssh. What ssh passes over, though it stands beside the file, is told.
func (a *SSHAliases) include(pattern, where, dir, home string, depth int) error {
	given := pattern
	pattern = ExpandPath(home, pattern)
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(home, ".ssh", pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("%w: %s: Include %.80q", ErrInvalid, where, given)
	}
	if beside, err := filepath.Glob(filepath.Join(dir, given)); err == nil && len(files) == 0 && len(beside) > 0 {
		a.Skipped = append(a.Skipped, Problem{where, fmt.Sprintf("ssh looks for Include %.80q in ~/.ssh, where it is not", given)})
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err == nil && info.Mode().IsRegular() {
			err = a.scan(file, home, depth)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
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
// node are the caller's.
func ParseSSHValues(r io.Reader, n Node, home string) (Node, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		keyword, value, _ := strings.Cut(s.Text(), " ")
		switch keyword {
		case "hostname":
			n.SSHHost = value
		case "user":
			n.SSHUser = value
		case "port":
			port, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return n, &FieldError{"ssh_port", rulePort}
			}
			n.SSHPort = uint16(port)
		case "identityfile":
			path := ExpandPath(home, value)
			if _, err := os.Stat(path); err == nil && n.SSHKeyPath == "" && filepath.IsAbs(path) {
				n.SSHKeyPath = path
			}
		}
	}
	return n, s.Err()
}

// WriteSSHConfig writes the nodes as ssh_config, for an Include: an alias for each,
// with its host keys asked for by command, and its key's path where one is noted.
// ssh would expand ${ with no way to write it otherwise: a path with it is left out,
// and said so in a comment; a command with it is ErrInvalid.
func WriteSSHConfig(w io.Writer, nodes []Node, knownHostsCommand []string) error {
	var b bytes.Buffer
	b.WriteString("# The nodes of an rbee-vault. Use it by a line at the top of ~/.ssh/config:\n# Include THIS-FILE\n")
	var command []string
	for _, arg := range knownHostsCommand {
		if sshExpands(arg) {
			return fmt.Errorf("%w: %q cannot be written in ssh_config, as ssh expands ${", ErrInvalid, arg)
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
	s = strings.ReplaceAll(s, "%", "%%")
	if strings.ContainsAny(s, " \t'#\\\"") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return s
}
