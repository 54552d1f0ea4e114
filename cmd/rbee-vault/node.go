package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func newNode(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "The machines of the fleet"}
	cmd.AddCommand(
		newNodeAdd(a),
		newNodeList(a),
		newNodeShow(a),
		newNodeUpdate(a),
		newNodeLabel(a),
		newNodeRename(a),
		newNodeRemove(a),
		newNodeImport(a),
		newNodeExport(a),
	)
	return cmd
}

// nodeOptions are the flags that describe a node.
type nodeOptions struct {
	sshHost     string
	sshPort     uint16
	sshUser     string
	sshKey      string
	gitRepo     string
	gitBranch   string
	installPath string
	backends    []string
	jump        string
	labels      []string
	note        string

	given func(flag string) bool // reports whether a flag was given
}

func (o *nodeOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	o.given = f.Changed
	f.StringVar(&o.sshHost, "ssh-host", "", "`HOST` name or address")
	f.Uint16Var(&o.sshPort, "ssh-port", 0, "SSH `PORT` (default: the setting ssh-port, 22)")
	f.StringVar(&o.sshUser, "ssh-user", "", "SSH `USER` (default: the setting ssh-user)")
	f.StringVar(&o.sshKey, "ssh-key", "", "`PATH` of the SSH private key on this machine")
	f.StringVar(&o.gitRepo, "git-repo", "", "`URL` to install from (default: the setting git-repo)")
	f.StringVar(&o.gitBranch, "git-branch", "", "`BRANCH` to install (default: the setting git-branch, main)")
	f.StringVar(&o.installPath, "install-path", "", "`PATH` to install at, on the node (default: the setting install-path)")
	f.StringArrayVar(&o.backends, "backend", nil, "compute backend: `NAME[=DEVICES]`, such as cuda=2 or cpu; repeatable")
	f.StringVar(&o.jump, "jump", "", "reach it through this `NODE`")
	f.StringArrayVar(&o.labels, "label", nil, "label: `KEY=VALUE`, such as rack=3; repeatable")
	f.StringVar(&o.note, "note", "", "a line of `TEXT` for people")
}

// anyGiven reports whether any of these flags was given.
func (o nodeOptions) anyGiven() bool {
	return slices.ContainsFunc([]string{"ssh-host", "ssh-port", "ssh-user", "ssh-key", "git-repo", "git-branch", "install-path", "backend", "jump", "label", "note"}, o.given)
}

// fill gives the flags that were not given the values of the settings.
func (o *nodeOptions) fill(values map[string]settingValue) error {
	for name, to := range map[string]*string{
		registry.SettingSSHUser:     &o.sshUser,
		registry.SettingGitRepo:     &o.gitRepo,
		registry.SettingGitBranch:   &o.gitBranch,
		registry.SettingInstallPath: &o.installPath,
	} {
		if !o.given(name) {
			*to = values[name].value
		}
	}
	if o.given(registry.SettingSSHPort) {
		return nil
	}
	port, err := strconv.ParseUint(values[registry.SettingSSHPort].value, 10, 16)
	o.sshPort = uint16(port)
	return err
}

// apply copies the flags to the node: those that were given, or all of them with their
// defaults.
func (o nodeOptions) apply(n *registry.Node, all bool) error {
	given := func(flag string) bool { return all || o.given(flag) }
	if given("ssh-host") {
		n.SSHHost = o.sshHost
	}
	if given("ssh-port") {
		n.SSHPort = o.sshPort
	}
	if given("ssh-user") {
		n.SSHUser = o.sshUser
	}
	if given("ssh-key") {
		path, err := expandKeyPath(o.sshKey)
		if err != nil {
			return err
		}
		n.SSHKeyPath = path
	}
	if given("git-repo") {
		n.GitRepoURL = o.gitRepo
	}
	if given("git-branch") {
		n.GitBranch = o.gitBranch
	}
	if given("install-path") {
		n.InstallPath = o.installPath
	}
	if given("backend") {
		var err error
		if n.Backends, n.Devices, err = parseBackends(o.backends); err != nil {
			return err
		}
	}
	if given("jump") {
		n.ProxyJump = o.jump
	}
	if given("note") {
		n.Note = o.note
	}
	changes, err := parseLabelChanges(o.labels, !all)
	if err != nil {
		return err
	}
	applyLabels(n, changes)
	return nil
}

// expandKeyPath makes the path of a key on this machine absolute.
func expandKeyPath(path string) (string, error) {
	home, _ := os.UserHomeDir()
	path = registry.ExpandPath(home, path)
	if path != "" && !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "-") && !strings.HasPrefix(path, "~") {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = wd + "/" + path
	}
	return path, nil
}

// parseBackends parses NAME or NAME=DEVICES. A single empty flag means that the backends
// are unknown.
func parseBackends(flags []string) (backends []string, devices map[string]uint32, err error) {
	if len(flags) == 0 || (len(flags) == 1 && flags[0] == "") {
		return nil, nil, nil
	}
	for _, flag := range flags {
		name, count, counted := strings.Cut(flag, "=")
		if slices.Contains(backends, name) {
			return nil, nil, &registry.FieldError{Field: "backends", Rule: fmt.Sprintf("has %s twice", strconv.Quote(name))}
		}
		backends = append(backends, name)
		if !counted {
			continue
		}
		n, err := strconv.ParseUint(count, 10, 32)
		if err != nil {
			return nil, nil, &registry.FieldError{Field: "devices", Rule: "must be whole numbers from 0 to 4294967295, as in cuda=2"}
		}
		if devices == nil {
			devices = map[string]uint32{}
		}
		devices[name] = uint32(n)
	}
	return backends, devices, nil
}

// backendsText returns backends and devices in the form of --backend, joined by commas.
func backendsText(n registry.Node) string {
	if n.Backends != nil && len(n.Backends) == 0 && len(n.Devices) == 0 {
		return "none"
	}
	names := slices.Clone(n.Backends)
	for name := range n.Devices {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if count, ok := n.Devices[name]; ok {
			names[i] = fmt.Sprintf("%s=%d", name, count)
		}
	}
	return strings.Join(names, ",")
}
