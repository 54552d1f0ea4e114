package agent_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"filippo.io/age"
	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/rbee-keeper/rbee-vault/agent"
	"github.com/rbee-keeper/rbee-vault/internal/unixsocket"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		log.Fatal(err)
	}
	cfg := vault.Config{
		Path:       filepath.Join(dir, "beehives.db"),
		Identities: []age.Identity{identity},
	}
	if _, err := vault.Create(ctx, cfg, vault.CreateOptions{
		Recipients: []string{identity.Recipient().String()},
	}); err != nil {
		log.Fatal(err)
	}
	r, err := registry.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	if _, err := r.GenerateSSHKey(ctx, "ed25519", "fleet"); err != nil {
		log.Fatal(err)
	}

	server, err := agent.New(agent.Config{Registry: agent.Lend(r)})
	if err != nil {
		log.Fatal(err)
	}
	socket := filepath.Join(dir, "agent")
	l, err := unixsocket.Listen(socket)
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()

	// This client does not say which host it is for.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	keys, err := sshagent.NewClient(conn).List()
	fmt.Println(len(keys), err)

	cancel()
	fmt.Println(<-ended)
	// Output:
	// 0 <nil>
	// context canceled
}
