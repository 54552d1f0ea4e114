package main

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/rbee-keeper/rbee-vault/registry"
)

// agentTimeout is how long to wait for an agent's answer.
const agentTimeout = 5 * time.Second

// callAgent calls the agent at a socket. That nobody answers there is errNoAgent.
func callAgent(ctx context.Context, socket string, timeout time.Duration, call func(sshagent.ExtendedAgent) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return noAgent(socket, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	client := sshagent.NewClient(conn)
	if _, err := client.List(); err != nil {
		return noAgent(socket, err)
	}
	return call(client)
}

func newAgentStatus(a *app) *cobra.Command {
	var o socketOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the keys that the agent has, with their nodes, and report whether it answers",
		Long: `List the keys of the vault, with the nodes that the agent uses each for: those with a
pinned host key. The list is that of the vault, as the agent shows a key to its hosts only.
Without an agent at the socket the exit code is 14.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgentStatus(cmd.Context(), a, o) },
	}
	o.register(cmd)
	return cmd
}

type agentStatusJSON struct {
	Socket  string         `json:"socket"`
	Answers bool           `json:"answers"`
	Keys    []agentKeyJSON `json:"keys"`
}

type agentKeyJSON struct {
	Fingerprint string   `json:"fingerprint"`
	Comment     string   `json:"comment"`
	Nodes       []string `json:"nodes"`    // that it is used for
	Unpinned    []string `json:"unpinned"` // that use it, and have no pinned host key
}

func runAgentStatus(ctx context.Context, a *app, o socketOptions) error {
	socket, err := o.path()
	if err != nil {
		return err
	}
	answers := callAgent(ctx, socket, agentTimeout, func(sshagent.ExtendedAgent) error { return nil })
	var keys []agentKeyJSON
	err = a.withRegistry(ctx, func(r *registry.Registry) (err error) {
		keys, err = agentKeys(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		err = a.ui.object(agentStatusJSON{socket, answers == nil, notNil(keys)})
	} else {
		showAgentKeys(a, keys)
	}
	if err != nil {
		return err
	}
	if answers != nil {
		return answers
	}
	a.ui.info("The agent answers at %s", socket)
	return nil
}

// agentKeys returns the keys that nodes use, with those nodes.
func agentKeys(ctx context.Context, r *registry.Registry) ([]agentKeyJSON, error) {
	keys, err := r.ListSSHKeys(ctx)
	if err != nil {
		return nil, err
	}
	pins, err := r.ListHostKeys(ctx)
	if err != nil {
		return nil, err
	}
	pinned := map[string]bool{}
	for _, k := range pins {
		pinned[k.Node] = true
	}
	var list []agentKeyJSON
	for _, k := range keys {
		j := agentKeyJSON{Fingerprint: k.Fingerprint, Comment: k.Comment, Nodes: []string{}, Unpinned: []string{}}
		for _, node := range k.Nodes {
			if pinned[node] {
				j.Nodes = append(j.Nodes, node)
			} else {
				j.Unpinned = append(j.Unpinned, node)
			}
		}
		list = append(list, j)
	}
	return list, nil
}

func showAgentKeys(a *app, keys []agentKeyJSON) {
	t := newTable("FINGERPRINT", "COMMENT", "NODES", "NOT PINNED")
	for _, k := range keys {
		t.row(k.Fingerprint, k.Comment, strings.Join(k.Nodes, ","), strings.Join(k.Unpinned, ","))
	}
	a.ui.table(t)
}
