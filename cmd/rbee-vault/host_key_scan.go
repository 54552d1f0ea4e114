package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
	"github.com/rbee-keeper/rbee-vault/vault"
)

type scanOptions struct {
	selectOptions
	against   string // path of a known_hosts file or of SSHFP records
	acceptNew bool
	timeout   time.Duration
}

func (o *scanOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.against, "against", "", "compare with the known_hosts `FILE`, or with SSHFP records (ssh-keygen -r)")
	f.BoolVar(&o.acceptNew, "accept-new", false, "pin the keys of nodes without a pinned key, without a comparison")
	f.DurationVar(&o.timeout, "timeout", hive.DefaultTimeout, "how long each connection may take")
}

func newHostKeyScan(a *app) *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "scan [NODE|GLOB...]",
		Short: "Fetch the host keys of nodes, compare them, and pin new ones",
		Long: `Fetch the host keys of the nodes, many at a time, without a login, and compare them with
what is pinned. Without a node, a glob or --where, all nodes are scanned.

  new      nothing is pinned for the node
  further  other keys are pinned for the node, and it presents one of them as well
  same     the key is pinned
  changed  another key is pinned, and the node does not present that

--against compares them with a file that you trust as well: a known_hosts file, or SSHFP
records, which "ssh-keygen -r NODE" prints on the machine itself.

  verified  the file has the key
  differs   the file has other keys of the node, or revokes this one
  unlisted  the file says nothing of it

Then one question pins all new keys that the file does not contradict. --yes pins those
that are verified; the others need an answer on the terminal, or --accept-new, which
trusts whatever answers first. Of further keys only verified ones are pinned; a changed
key and one that differs never are: the command for each of them is printed.

The exit code is 3 if a node could not be scanned, or has a key that changed or differs.`,
		Example: `  rbee-vault host-key scan 'hive-*' --against ~/.ssh/known_hosts
  ssh-keygen -r hive-01    # on the machine itself: records for --against`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runHostKeyScan(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

func runHostKeyScan(ctx context.Context, a *app, o scanOptions, args []string) error {
	if o.timeout <= 0 {
		return usagef("--timeout must be more than 0")
	}
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	var list []byte
	if o.against != "" { // a pipe is read before the vault is opened
		in, err := a.openArgument(ctx, o.against, "--against")
		if err != nil {
			return err
		}
		defer in.Close()
		if list, err = readInput(in, maxKnownHosts); err != nil {
			return fmt.Errorf("--against %q: %w", o.against, err)
		}
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		nodes, err := selection.nodes(ctx, a, r)
		if err != nil || len(nodes) == 0 {
			return err
		}
		s := scan{app: a, opts: o, store: r, dialer: &hive.Dialer{Registry: r, Timeout: o.timeout}}
		if o.against != "" {
			if s.reference, err = parseReference(a, list, nodes); err != nil {
				return fmt.Errorf("--against %q: %w", o.against, err)
			}
		}
		return s.run(ctx, nodes)
	})
}

// scan is one run of host-key scan.
type scan struct {
	app       *app
	opts      scanOptions
	store     checkStore
	dialer    *hive.Dialer
	reference *reference // nil: without --against
}

// pinState is how a key compares with what is pinned.
type pinState string

const (
	pinNew     pinState = "new"
	pinFurther pinState = "further"
	pinSame    pinState = "same"
	pinChanged pinState = "changed"
)

// scanned is a host key that a node presented, or why there is none.
type scanned struct {
	node   string
	key    ssh.PublicKey
	state  pinState
	old    []registry.HostKey // that are pinned for the node
	match  match
	pinned bool // by this run

	err error // of the scan; the key is nil
}

// bad reports whether a person has to look at it.
func (r scanned) bad() bool { return r.err != nil || r.state == pinChanged || r.match == matchDiffers }

// pinnable reports whether one answer for many keys may pin the key: nothing is pinned that
// it could contradict, and the reference does not contradict it. A further key that is not
// verified is not among them, because an attacker can pass on the connections for one type
// of key and present another type himself.
func (r scanned) pinnable() bool {
	return !r.bad() && (r.state == pinNew || r.state == pinFurther && r.match == matchVerified)
}

func (s *scan) run(ctx context.Context, nodes []registry.Node) error {
	results, err := s.fetch(ctx, nodes)
	if err != nil {
		return err
	}
	if !s.app.json { // before the question about it
		s.show(results)
	}
	if err := s.pin(ctx, results); err != nil {
		return err
	}
	if s.app.json {
		if err := changedOf(s.app.ui, results, scanned.json); err != nil {
			return err
		}
	}
	return scanError(results, len(nodes))
}

// scanError is errPartial for nodes that were not scanned, or whose keys are bad.
func scanError(results []scanned, nodes int) error {
	failed, bad := 0, map[string]bool{}
	for _, r := range results {
		switch {
		case r.err != nil:
			failed++
		case r.bad():
			bad[r.node] = true
		}
	}
	switch {
	case failed > 0 && len(bad) > 0:
		return fmt.Errorf("%w: %d of %d nodes could not be scanned, and %d have other keys", errPartial, failed, nodes, len(bad))
	case failed > 0:
		return fmt.Errorf("%w: %d of %d nodes could not be scanned", errPartial, failed, nodes)
	case len(bad) > 0:
		return fmt.Errorf("%w: %d of %d nodes have other keys", errPartial, len(bad), nodes)
	}
	return nil
}

// fetch fetches and compares the keys, in the order of the nodes.
func (s *scan) fetch(ctx context.Context, nodes []registry.Node) ([]scanned, error) {
	pinned, err := s.store.ListHostKeys(ctx)
	if err != nil {
		return nil, err
	}
	byNode := map[string][]registry.HostKey{}
	for _, k := range pinned {
		byNode[k.Node] = append(byNode[k.Node], k)
	}
	report, end := s.app.ui.count("scan")
	defer end()
	found := make([][]scanned, len(nodes))
	var mu sync.Mutex // guards done and the bar
	done := int64(0)
	g, each := errgroup.WithContext(ctx) // each ends with Wait
	g.SetLimit(probesAtOnce)
	for i, n := range nodes {
		g.Go(func() error {
			keys, err := s.dialer.HostKeys(each, n.Name)
			if errors.Is(err, registry.ErrNotFound) {
				return nil // it was removed meanwhile
			}
			if _, ok := hive.OutcomeOf(err); !ok {
				return err
			}
			if err == nil && len(keys) == 0 {
				err = fmt.Errorf("%w: it has no host key of a type that can be pinned", hive.ErrProtocol)
			}
			if err != nil {
				found[i] = []scanned{{node: n.Name, err: err}}
			} else {
				found[i] = compareKeys(n.Name, keys, byNode[n.Name], s.reference)
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; report != nil {
				report(done, int64(len(nodes)))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

// compareKeys compares the keys that a node presents with what is pinned for it, and with
// the reference where it is not nil.
func compareKeys(node string, keys []ssh.PublicKey, pinned []registry.HostKey, ref *reference) []scanned {
	presented := func(k registry.HostKey) bool {
		return slices.ContainsFunc(keys, func(key ssh.PublicKey) bool { return ssh.FingerprintSHA256(key) == vault.Fingerprint(k.PublicKey) })
	}
	known := slices.ContainsFunc(pinned, presented)
	var results []scanned
	for _, key := range keys {
		r := scanned{node: node, key: key, old: pinned}
		switch old := pinnedOfType(pinned, key.Type()); {
		case old == ssh.FingerprintSHA256(key):
			r.state = pinSame
		case old != "":
			r.state = pinChanged
		case len(pinned) == 0:
			r.state = pinNew
		case known:
			r.state = pinFurther
		default: // a machine that has none of the pinned keys is not known by its others
			r.state = pinChanged
		}
		results = append(results, r)
	}
	if ref != nil {
		ref.compare(node, results)
	}
	return results
}

// pin asks about the keys that may be pinned, and pins them in one transaction.
func (s *scan) pin(ctx context.Context, results []scanned) error {
	var verified, others []*scanned
	for i := range results {
		switch r := &results[i]; {
		case !r.pinnable():
		case r.match == matchVerified:
			verified = append(verified, r)
		default:
			others = append(others, r)
		}
	}
	var accepted []*scanned
	ask := others
	switch {
	case s.opts.acceptNew:
		accepted, ask = append(verified, others...), nil
	case s.app.yes:
		accepted = verified
	default:
		ask = append(verified, others...)
	}
	switch {
	case len(ask) == 0:
	case s.app.interactive() && !s.app.json:
		yes, err := s.app.ui.askYes(ctx, pinQuestion(len(ask), len(ask)-len(others)))
		if err != nil {
			return err
		}
		if yes {
			accepted = append(accepted, ask...)
		}
	default:
		s.app.ui.info("%d host keys are not pinned: %d of them are verified (to pin those: --yes), %d are new (without a comparison: --accept-new)",
			len(ask), len(ask)-len(others), len(others))
	}
	if len(accepted) == 0 {
		return nil
	}
	keys := map[string][]ssh.PublicKey{}
	for _, r := range accepted {
		keys[r.node] = append(keys[r.node], r.key)
	}
	added, err := s.store.TrustHostKeys(ctx, keys)
	if err != nil {
		return hostKeyHint(err)
	}
	for _, r := range accepted {
		r.pinned = true
	}
	s.app.ui.info("%d host keys were pinned", added)
	return nil
}

// pinQuestion asks about so many keys, of which some are verified.
func pinQuestion(keys, verified int) string {
	switch verified {
	case keys:
		return fmt.Sprintf("Pin these %d verified host keys?", keys)
	case 0:
		return fmt.Sprintf("Nothing vouches for these %d new host keys. Pin them?", keys)
	}
	return fmt.Sprintf("Pin these %d host keys? Nothing vouches for %d of them.", keys, keys-verified)
}

// scanJSON is a line of host-key scan --json.
type scanJSON struct {
	Node        string  `json:"node"`
	Type        *string `json:"type"`
	Fingerprint *string `json:"fingerprint"`
	PublicKey   *string `json:"public_key"`
	State       *string `json:"state"`
	Against     *string `json:"against"`
	Pinned      bool    `json:"pinned"`
	Outcome     *string `json:"outcome"`
	Error       *string `json:"error"`
	Hint        *string `json:"hint"`
	At          *string `json:"at"`
}

func (r scanned) json() scanJSON {
	j := scanJSON{Node: r.node, Pinned: r.pinned || r.state == pinSame, Hint: wire.Nullable(r.hint())}
	if r.err != nil {
		outcome, at := r.failure()
		j.Outcome, j.At, j.Error = wire.Nullable(outcomeName(outcome)), &at, wire.Nullable(causeOf(r.err, r.node))
		return j
	}
	j.Type, j.Fingerprint = wire.Nullable(r.key.Type()), wire.Nullable(ssh.FingerprintSHA256(r.key))
	j.PublicKey = wire.Nullable(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(r.key))))
	j.State, j.Against = wire.Nullable(string(r.state)), wire.Nullable(string(r.match))
	return j
}

// failure returns the outcome that the error stands for, and the node that it is of.
func (r scanned) failure() (o hive.Outcome, at string) {
	o, _ = hive.OutcomeOf(r.err)
	if e, ok := errors.AsType[*hive.Error](r.err); ok {
		return o, e.Node
	}
	return o, r.node
}

// hint returns the next step, or "".
func (r scanned) hint() string {
	switch {
	case r.err != nil:
		o, at := r.failure()
		if o == hive.HostKeyUnknown || o == hive.HostKeyChanged { // of a node that this one is reached through
			return "Check that node first: rbee-vault check " + at
		}
		return fillHint(outcomeHints[o], at, nil, nil)
	case r.state == pinSame && r.bad():
		return fmt.Sprintf("It is pinned, and not what the file has. To remove it: rbee-vault host-key forget %s --fingerprint %s", r.node, ssh.FingerprintSHA256(r.key))
	case r.bad():
		return fillHint(outcomeHints[hive.HostKeyChanged], r.node, r.key, r.old)
	case r.state == pinFurther && !r.pinned:
		return fillHint(outcomeHints[hive.HostKeyUnknown], r.node, r.key, nil)
	}
	return ""
}

// show prints the keys, and the next step for each that is not pinned with the others.
func (s *scan) show(results []scanned) {
	u := s.app.ui
	t := newTable("NODE", "TYPE", "FINGERPRINT", "STATE", "AGAINST")
	for _, r := range results {
		style := r.style()
		if r.err != nil {
			o, _ := r.failure()
			t.row(r.node, "", "", styled{o, style}, "")
			continue
		}
		t.row(r.node, r.key.Type(), ssh.FingerprintSHA256(r.key), styled{r.state, style}, styled{r.match, style})
	}
	u.table(t)
	for _, r := range results {
		switch hint := r.hint(); {
		case r.err != nil:
			u.info("%s: %s\n  %s", r.node, causeOf(r.err, r.node), hint)
		case hint != "" && !r.pinnable():
			what := string(r.state)
			if r.match == matchDiffers {
				what = string(r.match)
			}
			u.info("%s: %s: %s %s\n  %s", r.node, what, r.key.Type(), ssh.FingerprintSHA256(r.key), hint)
		}
	}
}

// style is the colour of a result.
func (r scanned) style() lipgloss.Style {
	switch {
	case r.bad():
		return red
	case r.state == pinSame || r.match == matchVerified:
		return green
	case r.state == pinNew || r.state == pinFurther:
		return yellow
	}
	return lipgloss.NewStyle()
}
