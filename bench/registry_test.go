package bench

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/internal/faulttest"
	"github.com/rbee-keeper/rbee-vault/keyring"
	"github.com/rbee-keeper/rbee-vault/keyring/keyringtest"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// fleet is n nodes as they are in life.
func fleet(n int) []registry.Node {
	nodes := make([]registry.Node, n)
	for i := range nodes {
		nodes[i] = registry.Node{
			Name:          fmt.Sprintf("hive-%05d", i),
			SSHHost:       fmt.Sprintf("10.%d.%d.%d", i/62_500, i/250%250, i%250+1),
			SSHPort:       registry.DefaultSSHPort,
			SSHUser:       "rbee",
			GitRepoURL:    "https://github.com/rbee-keeper/rbee.git",
			GitBranch:     "main",
			InstallPath:   "~/rbee",
			LastConnected: time.Unix(1_760_000_000+int64(i), 0),
			Status:        registry.StatusUnknown,
			Backends:      []string{"cpu", "cuda"},
			Devices:       map[string]uint32{"cpu": 1, "cuda": uint32(i%8 + 1)},
		}
	}
	return nodes
}

// ours is a registry in a vault.
type ours struct {
	*registry.Registry
	tb     testing.TB
	nodes  []registry.Node
	added  int
	rounds int // of status changes
}

// newOurs makes a vault with nodes, and opens it.
func newOurs(tb testing.TB, nodes []registry.Node) *ours {
	tb.Helper()
	return openOurs(tb, vaulttest.Config(tb), nodes)
}

func openOurs(tb testing.TB, cfg vault.Config, nodes []registry.Node) *ours {
	tb.Helper()
	r := registry.New(vaulttest.Open(tb, cfg))
	err := r.Vault().Update(tb.Context(), func(tx *vault.Tx) error {
		for _, n := range nodes {
			if err := registry.InsertNodes(tb.Context(), tx, n); err != nil {
				return err
			}
		}
		return tx.Audit(tb.Context(), vault.Event{Action: registry.ActionAddNode})
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &ours{Registry: r, tb: tb, nodes: nodes}
}

func (o *ours) name(i int) string { return o.nodes[i%len(o.nodes)].Name }

func (o *ours) get(i int) error {
	_, err := o.GetNode(o.tb.Context(), o.name(i))
	return err
}

func (o *ours) list(int) error {
	list, err := o.ListNodes(o.tb.Context())
	if err == nil && len(list) < len(o.nodes) {
		err = fmt.Errorf("%d nodes of %d", len(list), len(o.nodes))
	}
	return err
}

func (o *ours) add(int) error {
	n := o.nodes[o.added%len(o.nodes)]
	n.Name = fmt.Sprintf("new-%08d", o.added)
	o.added++
	return o.AddNode(o.tb.Context(), n)
}

func (o *ours) status(i int) error {
	if i%len(o.nodes) == 0 {
		o.rounds++
	}
	return o.UpdateStatus(o.tb.Context(), o.name(i), []registry.Status{registry.StatusOnline, registry.StatusOffline}[o.rounds%2])
}

var sizes = []int{10, 1_000, 10_000}

func BenchmarkGetNode(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			nodes := fleet(size)
			compare(b, repeat(b, newOurs(b, nodes).get), startReference(b, nodes).side(b, "get"))
		})
	}
}

// The reference here keeps a prepared statement, as the vault does.
func BenchmarkGetNodePrepared(b *testing.B) {
	nodes := fleet(1_000)
	compare(b, repeat(b, newOurs(b, nodes).get), startReference(b, nodes).side(b, "prepared"))
}

func BenchmarkListNodes(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			nodes := fleet(size)
			compare(b, repeat(b, newOurs(b, nodes).list), startReference(b, nodes).side(b, "list"))
		})
	}
}

// BenchmarkAddNode adds nodes that are new, each in a durable transaction. The
// reference executes the same statements, the audit log's too ("same"), or the
// INSERT alone ("bare").
func BenchmarkAddNode(b *testing.B) {
	nodes := fleet(1_000)
	for _, reference := range []struct{ name, op string }{{"same", "audited"}, {"bare", "add"}} {
		b.Run(reference.name, func(b *testing.B) {
			compare(b, repeat(b, newOurs(b, nodes).add), startReference(b, nodes).side(b, reference.op))
		})
	}
}

func BenchmarkUpdateStatus(b *testing.B) {
	nodes := fleet(1_000)
	compare(b, repeat(b, newOurs(b, nodes).status), startReference(b, nodes).side(b, "status"))
}

// BenchmarkMixed has eight readers read beside a writer. Of a hundred reads one
// is of all nodes. Reported per read; the writer's share is writes/s.
func BenchmarkMixed(b *testing.B) {
	nodes := fleet(1_000)
	for _, rate := range []struct {
		name string
		max  int // changes a second; 0: as many as it can
	}{
		{"writer=10Hz", 10},
		{"writer=100Hz", 100},
		{"writer=full", 0},
	} {
		b.Run(rate.name, func(b *testing.B) {
			o, ref := newOurs(b, nodes), startReference(b, nodes)
			var our, their tally
			// Turns are long, so that each sees many changes.
			const reads = 8_000
			compareBy(b, reads, func(n int) time.Duration {
				return our.count(o.mixed(n, rate.max))
			}, func(n int) time.Duration {
				return their.count(ref.request(b, "mixed %d %d", n, rate.max))
			})
			b.ReportMetric(our.rate(), "writes/s")
			b.ReportMetric(their.rate(), "plain-writes/s")
		})
	}
}

// tally adds up writes over time.
type tally struct {
	took    time.Duration
	written int
}

func (t *tally) count(took time.Duration, written int) time.Duration {
	t.took += took
	t.written += written
	return took
}

func (t *tally) rate() float64 { return float64(t.written) / t.took.Seconds() }

// mixed is what the reference calls so.
func (o *ours) mixed(n, rate int) (took time.Duration, written int) {
	const readers = 8
	var next atomic.Int64
	var wg, writer sync.WaitGroup
	done := make(chan struct{})
	start := time.Now()
	for range readers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				read := o.get
				if i%100 == 0 {
					read = o.list
				}
				if err := read(i); err != nil {
					o.tb.Error(err)
					return
				}
			}
		})
	}
	writer.Go(func() {
		for i := 0; ; i++ {
			if rate > 0 {
				time.Sleep(time.Until(start.Add(time.Duration(i+1) * time.Second / time.Duration(rate))))
			}
			select {
			case <-done:
				return
			default:
			}
			if err := o.status(i); err != nil {
				o.tb.Error(err)
				return
			}
			written++
		}
	})
	wg.Wait()
	took = time.Since(start)
	close(done)
	writer.Wait()
	return took, written
}

// BenchmarkOpen opens, reads one node and closes. With "key" the key comes at
// once; the others have the same vault's key from where people keep it. What
// these cost more is what getting the key costs.
func BenchmarkOpen(b *testing.B) {
	nodes := fleet(1_000)
	open := func(b *testing.B, cfg vault.Config) {
		if err := openOurs(b, cfg, nodes).Vault().Close(); err != nil {
			b.Fatal(err)
		}
		ours := repeat(b, func(i int) error {
			r, err := registry.Open(b.Context(), cfg)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = r.GetNode(b.Context(), nodes[i%len(nodes)].Name)
			return err
		})
		ref := startReference(b, nodes)
		compare(b, ours, ref.side(b, "open"))
	}
	b.Run("key", func(b *testing.B) {
		open(b, createIn(b, faulttest.Keyring{Dir: b.TempDir(), Steps: &faulttest.Steps{}}))
	})
	b.Run("keyring", func(b *testing.B) {
		keyringtest.Start(b)
		open(b, createIn(b, keyring.New(keyring.Config{})))
	})
	b.Run("identity", func(b *testing.B) { open(b, vaulttest.Config(b)) })
}

// createIn makes a vault whose key is in a keyring.
func createIn(tb testing.TB, k vault.Keyring) vault.Config {
	tb.Helper()
	recovery, err := age.GenerateX25519Identity()
	if err != nil {
		tb.Fatal(err)
	}
	cfg := vault.Config{Path: filepath.Join(vaulttest.Dir(tb), "beehives.db"), Keyring: k}
	if _, err := vault.Create(tb.Context(), cfg, vault.CreateOptions{Recipients: []string{recovery.Recipient().String()}}); err != nil {
		tb.Fatal(err)
	}
	return cfg
}
