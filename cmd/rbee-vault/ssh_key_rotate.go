package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/backup"
	"github.com/rbee-keeper/rbee-vault/hive"
	"github.com/rbee-keeper/rbee-vault/internal/wire"
	"github.com/rbee-keeper/rbee-vault/registry"
)

type keyRotateOptions struct {
	selectOptions
	all      bool
	noBackup bool
	dryRun   bool
}

func (o *keyRotateOptions) register(cmd *cobra.Command) {
	o.selectOptions.register(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "every node that uses a key in the vault")
	cmd.Flags().BoolVar(&o.noBackup, "no-backup", false, "remove the old keys without a backup that has the new ones")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and do nothing")
}

func newSSHKeyRotate(a *app) *cobra.Command {
	var o keyRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate NODE|GLOB... | rotate --all",
		Short: "Replace the SSH keys of nodes, in the vault and on the nodes",
		Long: `Replace the SSH key of each node by a new ed25519 key of its own:

  1. The new key is made in the vault.
  2. Its line is added to authorized_keys on the node, with the options of the old key's line.
  3. A login proves the new key, and the vault uses it from then on.
  4. A backup with the new keys is made: one for all nodes (--no-backup: none).
  5. The old key's line is removed, by a login with the new key. Further logins prove that
     the node accepts the new key and refuses the old one.
  6. The old key is removed from the vault, unless other nodes use it.

The vault records how far each node has come, so that the command goes on from there when
it is run again. At every moment the vault has a key that the node accepts. If a node could
not be done, the exit code is 3.`,
		Example: `  rbee-vault ssh-key rotate hive-03
  rbee-vault ssh-key rotate --all --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runSSHKeyRotate(cmd.Context(), a, o, args) },
	}
	o.register(cmd)
	return cmd
}

// parse parses the flags and the arguments.
func (o keyRotateOptions) parse(args []string) (nodeSelection, error) {
	if !o.all {
		return o.parseSome(args)
	}
	if len(args) > 0 || o.where != "" {
		return nodeSelection{}, usagef("give nodes or --all, not both")
	}
	return o.selectOptions.parse(nil)
}

func runSSHKeyRotate(ctx context.Context, a *app, o keyRotateOptions, args []string) error {
	selection, err := o.parse(args)
	if err != nil {
		return err
	}
	return a.withRegistry(ctx, func(r *registry.Registry) error {
		names, err := selection.names(ctx, a, r)
		if err != nil {
			return err
		}
		keys, err := r.ListSSHKeys(ctx)
		if err != nil {
			return err
		}
		if o.all {
			names = slices.DeleteFunc(names, func(name string) bool { return keyOf(keys, name) == nil })
		}
		if o.dryRun {
			return a.planKeyRotation(ctx, r, keys, names)
		}
		hosts := newNodeKeys(r)
		defer hosts.close()
		k := keyRotator{
			store:  r,
			hosts:  hosts,
			report: a.reportKeyRotation,
		}
		if !o.noBackup {
			k.backup = func(ctx context.Context) error { return a.backupNewKeys(ctx, r) }
		}
		failed, err := k.run(ctx, names)
		if err != nil {
			return err
		}
		a.reportOldKeys(k.shared)
		if failed > 0 {
			return fmt.Errorf("%w: the keys of %d of %d nodes are not replaced", errPartial, failed, len(names))
		}
		return nil
	})
}

// keyOf returns the key that a node uses, or nil.
func keyOf(keys []registry.SSHKey, node string) *registry.SSHKey {
	for i, k := range keys {
		if slices.Contains(k.Nodes, node) {
			return &keys[i]
		}
	}
	return nil
}

// backupNewKeys makes a backup where the command backup makes it.
func (a *app) backupNewKeys(ctx context.Context, r *registry.Registry) error {
	opts, err := a.createOptions(ctx, r.Vault(), backupOptions{})
	if err != nil {
		return err
	}
	created, err := backup.Create(ctx, r.Vault(), opts)
	if err != nil {
		return err
	}
	a.ui.info("The new keys are in the backup %s.", created.Copies[0])
	return nil
}

// rotationStore records rotations. Each method is one transaction.
type rotationStore interface {
	BeginKeyRotation(ctx context.Context, node string) (registry.KeyRotation, error)
	SwitchKeyRotation(ctx context.Context, node string) error
	SaveKeyRotations(ctx context.Context, nodes ...string) error
	EndKeyRotation(ctx context.Context, node string) (users []string, err error)
}

var _ rotationStore = (*registry.Registry)(nil)

// rotationHosts works on nodes. Each method may be repeated.
type rotationHosts interface {
	// authorize adds the new key, by a login with the old one.
	authorize(ctx context.Context, k registry.KeyRotation) error
	// login logs in with a key.
	login(ctx context.Context, node, fingerprint string) error
	// deauthorize removes the old key, by a login with the new one. It reports whether it
	// was there.
	deauthorize(ctx context.Context, k registry.KeyRotation) (removed bool, err error)
}

var _ rotationHosts = (*nodeKeys)(nil)

var (
	errOldKeyBack     = errors.New("the line of the old key came back into authorized_keys after it was removed")
	errOldKeyAccepted = errors.New("the node still accepts the old key")
	errSameAccount    = errors.New("other nodes use the old key, and would lose it too: they have the same account or home directory")
)

// keyRotator replaces the keys of nodes. No old key is removed from a node before the vault
// has switched each node that it could, and the backup is made.
type keyRotator struct {
	store  rotationStore
	hosts  rotationHosts
	backup func(context.Context) error // nil: none is made
	report func(k registry.KeyRotation, err error) error
	shared map[string][]string // the nodes that still use the old keys, by fingerprint
}

// run returns how many nodes are not done; the report has said why. The error is one that
// says nothing of a node. Every node is then at the step that the vault has recorded.
func (k *keyRotator) run(ctx context.Context, nodes []string) (failed int, err error) {
	k.shared = map[string][]string{}
	done := func(rotation registry.KeyRotation, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
		}
		return k.report(rotation, err)
	}
	var switched []registry.KeyRotation
	for _, node := range nodes {
		rotation, err := k.introduce(ctx, node)
		if err == nil {
			switched = append(switched, rotation)
		} else if err := done(rotation, err); err != nil {
			return failed, err
		}
	}
	if err := k.save(ctx, switched); err != nil {
		return failed, fmt.Errorf("back up the new keys before an old one is removed: %w", err)
	}
	for _, rotation := range switched {
		if err := done(rotation, k.retire(ctx, rotation)); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// introduce takes a node to the step switched: it accepts the new key, and the vault uses it.
func (k *keyRotator) introduce(ctx context.Context, node string) (registry.KeyRotation, error) {
	rotation, err := k.store.BeginKeyRotation(ctx, node)
	if errors.Is(err, registry.ErrNotFound) {
		err = withHint(err, "It uses no key in the vault. Give it one: rbee-vault ssh-key generate --node %s", node)
	}
	if err != nil {
		return registry.KeyRotation{Node: node}, err
	}
	if rotation.Step != registry.RotationPending {
		return rotation, nil
	}
	notAdded := k.hosts.authorize(ctx, rotation)
	if notAdded != nil && !mayBeAdded(notAdded) {
		return rotation, notAdded
	}
	// The login alone decides: the line may have been added by hand, or by a run that a
	// restored vault knows nothing of.
	if err := k.hosts.login(ctx, node, rotation.New); err != nil {
		return rotation, withHint(errors.Join(notAdded, err), "Add the new key beside the old one by hand, and run the command again: rbee-vault ssh-key show %s", rotation.New)
	}
	if err := k.store.SwitchKeyRotation(ctx, node); err != nil {
		return rotation, err
	}
	rotation.Step = registry.RotationSwitched
	return rotation, nil
}

// mayBeAdded reports whether the node may accept the new key although authorize failed so.
func mayBeAdded(err error) bool {
	return errors.Is(err, hive.ErrPermission) || errors.Is(err, hive.ErrNotAuthorized) || errors.Is(err, hive.ErrUnknownOutcome)
}

// save makes the backup, if a rotation needs one. They are then at the step saved.
func (k *keyRotator) save(ctx context.Context, rotations []registry.KeyRotation) error {
	var names []string
	for _, rotation := range rotations {
		if rotation.Step == registry.RotationSwitched {
			names = append(names, rotation.Node)
		}
	}
	if k.backup == nil || len(names) == 0 {
		return nil
	}
	if err := k.backup(ctx); err != nil {
		return err
	}
	return k.store.SaveKeyRotations(ctx, names...)
}

// retire removes the old key: from the node, and when the node refuses it, from the vault.
func (k *keyRotator) retire(ctx context.Context, rotation registry.KeyRotation) error {
	if _, err := k.hosts.deauthorize(ctx, rotation); err != nil {
		return err
	}
	// By another login with the new key. Something may write the file anew.
	if back, err := k.hosts.deauthorize(ctx, rotation); err != nil {
		return err
	} else if back {
		return withHint(errOldKeyBack, "Find what writes the file, such as a configuration management, and run the command again.")
	}
	// The server may read another file too.
	err := k.hosts.login(ctx, rotation.Node, rotation.Old)
	if err == nil {
		return withHint(errOldKeyAccepted, "Its line is in another file that the server reads. Remove it there, and run the command again.")
	}
	if !refused(err, rotation.Node) {
		return err
	}
	users, err := k.store.EndKeyRotation(ctx, rotation.Node)
	if err == nil {
		k.shared[rotation.Old] = users
	}
	return err
}

// refused reports whether the node itself, not one on the way to it, refused a key.
func refused(err error, node string) bool {
	at, ok := errors.AsType[*hive.Error](err)
	return errors.Is(err, hive.ErrPermission) && ok && at.Node == node
}

// nodeKeys is rotationHosts by SSH.
type nodeKeys struct {
	registry *registry.Registry
	dialer   *hive.Dialer
	signers  map[[2]string]ssh.Signer // by node and fingerprint: one audit row for each
	others   map[string]*hive.Conn    // to nodes that use an old key; nil: there is none
}

// newNodeKeys returns rotationHosts for the nodes of a registry. The caller closes it.
func newNodeKeys(r *registry.Registry) *nodeKeys {
	return &nodeKeys{registry: r, dialer: &hive.Dialer{Registry: r}, signers: map[[2]string]ssh.Signer{}, others: map[string]*hive.Conn{}}
}

func (n *nodeKeys) dial(ctx context.Context, node, fingerprint string) (*hive.Conn, error) {
	id := [2]string{node, fingerprint}
	if n.signers[id] == nil {
		signer, err := n.registry.KeySigner(ctx, fingerprint, node)
		if err != nil {
			return nil, err
		}
		n.signers[id] = signer
	}
	return n.dialer.DialBy(ctx, node, func(context.Context, registry.Node) ([]ssh.AuthMethod, error) {
		return []ssh.AuthMethod{ssh.PublicKeys(n.signers[id])}, nil
	})
}

func (n *nodeKeys) login(ctx context.Context, node, fingerprint string) error {
	conn, err := n.dial(ctx, node, fingerprint)
	conn.Close()
	return err
}

// keys returns the two keys of a rotation.
func (n *nodeKeys) keys(ctx context.Context, k registry.KeyRotation) (old, new registry.SSHKey, err error) {
	if old, err = n.registry.SSHKey(ctx, k.Old); err == nil {
		new, err = n.registry.SSHKey(ctx, k.New)
	}
	return old, new, err
}

func (n *nodeKeys) authorize(ctx context.Context, k registry.KeyRotation) error {
	old, new, err := n.keys(ctx, k)
	if err != nil {
		return err
	}
	conn, err := n.dial(ctx, k.Node, k.Old)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.AuthorizeLike(ctx, new.PublicKey+" "+commentOf(new), old.PublicKey)
	return err
}

func (n *nodeKeys) deauthorize(ctx context.Context, k registry.KeyRotation) (removed bool, err error) {
	old, new, err := n.keys(ctx, k)
	if err != nil {
		return false, err
	}
	if err := n.checkAccount(ctx, k, old, new); err != nil {
		return false, err
	}
	conn, err := n.dial(ctx, k.Node, k.New)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return conn.Deauthorize(ctx, old.PublicKey, new.PublicKey)
}

// checkAccount checks that no other node that uses the old key would lose it too: another
// name of the same account, or a node with the same home directory. The latter is asked
// whether it has the new key. One that does not answer may go on: the new key would open it.
func (n *nodeKeys) checkAccount(ctx context.Context, k registry.KeyRotation, old, new registry.SSHKey) error {
	node, err := n.registry.GetNode(ctx, k.Node)
	if err != nil {
		return err
	}
	var same []string
	for _, user := range old.Nodes {
		other, err := n.registry.GetNode(ctx, user)
		if err != nil {
			return err
		}
		if other.SSHHost == node.SSHHost && other.SSHPort == node.SSHPort && other.SSHUser == node.SSHUser || n.has(ctx, user, new) {
			same = append(same, user)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(same) > 0 {
		list := strings.Join(same, " ")
		return withHint(fmt.Errorf("%w: %s", errSameAccount, list), "Rotate them together: rbee-vault ssh-key rotate %s %s", k.Node, list)
	}
	return nil
}

// has reports whether a node is known to accept a key, by a login with its own.
func (n *nodeKeys) has(ctx context.Context, node string, key registry.SSHKey) bool {
	conn, asked := n.others[node]
	if !asked {
		conn, _ = n.dialer.Dial(ctx, node)
		n.others[node] = conn
	}
	if conn == nil {
		return false
	}
	found, err := conn.Authorizes(ctx, key.PublicKey)
	return err == nil && found
}

// close closes the connections that are kept.
func (n *nodeKeys) close() {
	for _, conn := range n.others {
		conn.Close()
	}
}

type keyRotationJSON struct {
	Node  string  `json:"node"`
	Old   *string `json:"old"`
	New   *string `json:"new"`
	Step  *string `json:"step"`
	Error *string `json:"error"`
	Hint  *string `json:"hint"`
}

// reportKeyRotation prints what became of a node. On an error it stays at its step.
func (a *app) reportKeyRotation(k registry.KeyRotation, err error) error {
	next := ""
	if err != nil {
		next = hint(err, "")
	}
	if a.json {
		j := keyRotationJSON{Node: k.Node, Old: wire.Nullable(k.Old), New: wire.Nullable(k.New), Hint: wire.Nullable(next)}
		if err != nil {
			j.Step, j.Error = wire.Nullable(string(k.Step)), wire.Nullable(err.Error())
		}
		return a.ui.object(j)
	}
	if err == nil {
		a.ui.info("%s accepts its new key only: %s", k.Node, k.New)
		return nil
	}
	a.ui.warn("%s: %s", k.Node, err)
	if next != "" {
		a.ui.info("  %s", next)
	}
	switch k.Step {
	case registry.RotationPending:
		a.ui.info("  It still uses its old key. To go on: rbee-vault ssh-key rotate %s", k.Node)
	case registry.RotationSwitched, registry.RotationSaved:
		a.ui.info("  It uses its new key, and the old one is still in the vault. To go on: rbee-vault ssh-key rotate %s", k.Node)
	}
	return nil
}

// reportOldKeys names the nodes that still use a key which was replaced for others.
func (a *app) reportOldKeys(shared map[string][]string) {
	for _, old := range slices.Sorted(maps.Keys(shared)) {
		if users := shared[old]; len(users) > 0 {
			a.ui.info("The old key %s stays in the vault: it is still in use by %s.", old, strings.Join(users, ", "))
		}
	}
}

type rotationPlanJSON struct {
	Node   string   `json:"node"`
	Old    *string  `json:"old"`
	New    *string  `json:"new"`
	Step   *string  `json:"step"`
	Others []string `json:"others"`
}

// planKeyRotation prints what would be done.
func (a *app) planKeyRotation(ctx context.Context, r *registry.Registry, keys []registry.SSHKey, names []string) error {
	rotations, err := r.ListKeyRotations(ctx)
	if err != nil {
		return err
	}
	without := 0
	for _, name := range names {
		plan := registry.KeyRotation{Node: name}
		if i := slices.IndexFunc(rotations, func(k registry.KeyRotation) bool { return k.Node == name }); i >= 0 {
			plan = rotations[i]
		} else if key := keyOf(keys, name); key != nil {
			plan.Old = key.Fingerprint
		} else {
			without++
		}
		var others []string // that go on using the old key
		for _, k := range keys {
			if k.Fingerprint == plan.Old {
				others = slices.DeleteFunc(slices.Clone(k.Nodes), func(n string) bool { return slices.Contains(names, n) })
			}
		}
		if a.json {
			j := rotationPlanJSON{name, wire.Nullable(plan.Old), wire.Nullable(plan.New), wire.Nullable(string(plan.Step)), notNil(others)}
			if err := a.ui.object(j); err != nil {
				return err
			}
			continue
		}
		text := "the key " + plan.Old + " would be replaced"
		switch {
		case plan.Old == "":
			text = "it uses no key in the vault"
		case plan.Step == registry.RotationPending:
			text = "the rotation would go on: the node would be given the new key " + plan.New
		case plan.Step != "":
			text = "the rotation would go on: the old key " + plan.Old + " would be removed from the node"
		}
		if len(others) > 0 {
			text += "; it stays in use by " + strings.Join(others, ", ")
		}
		a.ui.printf("%s: %s\n", name, text)
	}
	if without > 0 {
		return fmt.Errorf("%w: %d of %d nodes use no key in the vault", errPartial, without, len(names))
	}
	return nil
}
