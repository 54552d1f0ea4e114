package registry

import (
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestCacheNeverGoesBack: a slow reader with an older revision drops and replaces
// nothing of a newer one.
func TestCacheNeverGoesBack(t *testing.T) {
	v := vaulttest.New(t)
	older, err := v.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Name: "hive-01", SSHHost: "old", SSHPort: 22, SSHUser: "ops", GitRepoURL: "https://example.org/r.git", GitBranch: "main", InstallPath: "/opt"}
	if err := New(v).CreateNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	newer, err := v.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, late := range map[string]func(c *nodeCache, version vault.Revision){
		"one": func(c *nodeCache, version vault.Revision) { c.keep(version, n) },
		"all": func(c *nodeCache, version vault.Revision) { c.keepAll(version, []Node{n}) },
	} {
		c := &nodeCache{}
		now := n
		now.SSHHost = "new"
		c.keepAll(newer, []Node{now})
		late(c, older)
		if got, ok := c.node(newer, n.Name); !ok || got.SSHHost != "new" {
			t.Errorf("%s: a node is %q, %t", name, got.SSHHost, ok)
		}
		if got, ok := c.list(newer); !ok || got[0].SSHHost != "new" {
			t.Errorf("%s: the list is %v, %t", name, got, ok)
		}
		if _, ok := c.node(older, n.Name); ok {
			t.Errorf("%s: it answers for the older version", name)
		}
	}
}
