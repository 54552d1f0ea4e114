package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// readHostKeys looks the nodes of the set up in the known_hosts files of the user. Only
// entries for exactly the node's address and port count. A missing file is an error only
// where the user named it.
func readHostKeys(ctx context.Context, o importOptions, set *registry.ImportSet, home string) error {
	set.HostKeys = map[string][]ssh.PublicKey{}
	rows := countRows(set.Nodes)
	var groups []knownHostsGroup
	for _, n := range set.Nodes {
		if rows[n.Name] > 1 {
			set.Warnings = append(set.Warnings, registry.Problem{Row: n.Name, Reason: "its host keys are not pinned: the file has the node twice"})
			continue
		}
		files, err := knownHostsFiles(ctx, o, set, n, home)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(groups, func(g knownHostsGroup) bool { return slices.Equal(g.files, files) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, knownHostsGroup{files: files})
		}
		groups[i].nodes = append(groups[i].nodes, n)
	}
	for _, g := range groups {
		known, err := g.read(ctx, o.knownHosts != "")
		if err != nil {
			return fmt.Errorf("known_hosts file %s: %w", strings.Join(g.files, ", "), err)
		}
		for _, p := range known.Skipped {
			set.Warnings = append(set.Warnings, registry.Problem{Row: p.Row, Reason: fmt.Sprintf("%s, in %s", p.Reason, strings.Join(g.files, ", "))})
		}
		set.More.Warnings += known.More
		for name, keys := range known.Keys {
			set.HostKeys[name] = keys
		}
	}
	return nil
}

// knownHostsFiles returns the known_hosts files of a node: the one of --known-hosts, those
// that ssh uses for the alias, or that of the user.
func knownHostsFiles(ctx context.Context, o importOptions, set *registry.ImportSet, n registry.Node, home string) ([]string, error) {
	switch {
	case o.knownHosts != "":
		return []string{o.knownHosts}, nil
	case o.sshConfig == "":
		return []string{filepath.Join(home, ".ssh", "known_hosts")}, nil
	}
	config, err := filepath.Abs(o.sshConfig)
	if err != nil {
		return nil, err
	}
	values, err := sshValues(ctx, config, n.Name)
	if err != nil {
		return nil, err
	}
	files, lost, err := registry.ParseSSHKnownHosts(bytes.NewReader(values), n, home)
	for _, reason := range lost {
		set.Warnings = append(set.Warnings, registry.Problem{Row: n.Name, Reason: reason})
	}
	return files, err
}

// knownHostsGroup is nodes whose host keys are in the same files.
type knownHostsGroup struct {
	files []string
	nodes []registry.Node
}

// read looks the nodes up in all the files as if they were one: a key that one of them
// revokes is not pinned from another.
func (g knownHostsGroup) read(ctx context.Context, must bool) (registry.KnownHosts, error) {
	var all bytes.Buffer
	for _, file := range g.files {
		if file == "/dev/null" { // a common way to have no known_hosts
			continue
		}
		in, err := openInput(ctx, file)
		if errors.Is(err, fs.ErrNotExist) && !must {
			continue
		}
		if err != nil {
			return registry.KnownHosts{}, err
		}
		content, err := readInput(in, maxKnownHosts)
		in.Close()
		if err != nil {
			return registry.KnownHosts{}, err
		}
		all.Write(content)
		all.WriteByte('\n')
	}
	return registry.ReadExactKnownHosts(&all, g.nodes)
}
