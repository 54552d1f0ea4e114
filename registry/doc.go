// Package registry keeps the nodes of a fleet, their SSH keys and their pinned
// host keys in a vault.
//
// Start from [Registry]. [Open] opens a vault with its registry, and [New] takes a
// vault that the caller has opened. The values are [Node], [SSHKey] and [HostKey].
// The functions that take a [vault.Tx], such as [EachNode] and [InsertNodes], work
// inside a transaction of the caller. Package backup uses them.
//
// Other formats are read into an [ImportSet] or written from nodes: [ReadLegacy],
// [ReadNDJSON], [ScanSSHConfig], [ReadKnownHosts], [WriteSSHConfig] and
// [WriteKnownHosts].
//
// # Nodes
//
// A Node has twelve fields. The name is its identity, and only RenameNode changes
// it. Seven fields are configuration, which people set: how to reach the machine and
// what to install on it. Four fields are state, which is observed: LastConnected,
// Status, Backends and Devices.
//
// Beside the twelve, in tables of their own, stand a node's ProxyJump, Note and Labels.
// They are configuration too. ProxyJump names another node: it exists, no way leads in a
// circle or through more than MaxJumps nodes, and RemoveNode refuses a node that others
// jump through. Jumps are checked at the end of a transaction, so UpdateNodes and Import
// take nodes in any order.
//
// Every state field has a value for unknown: the zero time, StatusUnknown, a nil
// slice, a nil map. An empty slice is not unknown: it says that the machine has no
// backend. Where the state given to AddNode is unknown, the stored state stays. So
// adding a node again never loses its state.
//
// Backends and Devices are independent. A device count may belong to a backend that
// is not listed, and a listed backend may have no count.
//
// Every write and every read validates every field, so the package returns only
// valid values. A row that is not valid, which only another program can write, is
// ErrBadRow and is named in the error. RemoveNode can remove it.
//
// # Key rotations
//
// A [KeyRotation] records how far the replacement of a node's SSH key has come. Its two
// keys are in the vault until it ends, so at every moment the vault has a key that the
// node accepts. The work on the node is the caller's, between the methods:
//
//	BeginKeyRotation   the new key is stored; the node uses the old one
//	                   ... the node accepts the new key too
//	SwitchKeyRotation  the node uses the new key
//	                   ... a backup has the new key
//	SaveKeyRotations   the backup is recorded
//	                   ... the node accepts the new key only
//	EndKeyRotation     the old key is removed, unless others need it
//
// Making a node use another key, or none, ends its rotation. Both keys stay then.
//
// # Durability
//
// Each method is one transaction of the vault. When it returns without an error, its
// change is on the disk, with its audit row. After an error nothing is changed.
//
// # Concurrency
//
// A Registry is safe for use by many goroutines and processes at once. A read sees
// one moment of the vault, and everything that was committed before it began. Nodes
// are cached until any process commits. A read-modify-write such as UpdateNode
// excludes all other writers, also those of other processes. The function given to
// UpdateNode must not call the Registry, because it would wait for itself.
//
// # Audit
//
// Every change of configuration, capabilities or keys writes an audit row in the
// same transaction. These are all actions of the package:
//
//	node.add               a node is added
//	node.update            AddNode, UpdateNode, Import or Merge changes a node
//	node.capabilities      UpdateCapabilities changes the backends or devices
//	node.rename            the subject is the old name
//	node.remove            a node is removed with its host keys
//	node.import            Import is done; the subject is the source, the detail counts
//	ssh-key.add            a private key is stored
//	ssh-key.generate       a key is generated and stored
//	ssh-key.assign         a node uses another key, or no key
//	ssh-key.remove         a key is removed, or RemoveNode removed its last node
//	ssh-key.export         ExportSSHKey is about to return the private key
//	ssh-key.export-refused a program refused to export the private key
//	ssh-key.rotate         the rotation of a node's key begins, takes a step, or ends
//	ssh-key.use            Signer or KeySigner is about to return a signer for a node
//	ssh-key.sign           a signature is about to be made; Sign
//	host-key.trust         a host key is pinned; the detail names the replaced ones
//	host-key.forget        host keys of a node are removed
//	setting.set            a default is set
//	setting.unset          a default is removed
//
// The subject is the name of the node for node, host-key, ssh-key.assign and
// ssh-key.rotate, the fingerprint for the other actions about SSH keys, and the name of
// the setting. The detail names each changed
// field with its old and new value.
//
// Status, last contact, and when a host key was last seen are not audited. An
// operation that changes nothing writes no audit row.
//
// # Compatibility
//
// The table of nodes and the JSON form of a Node have the twelve field names of the
// earlier registry. The JSON form has three more where they say something. ReadLegacy reads the plain SQLite file of that registry, with ten
// or twelve columns, and Import stores its nodes.
package registry
