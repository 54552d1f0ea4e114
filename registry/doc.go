// Package registry keeps the nodes of a fleet, their SSH keys and their pinned
// host keys in a vault.
//
// Open gives a Registry over an encrypted database that exists; New puts one
// over a vault that the caller has opened. The functions that take a
// [vault.Tx] (EachNode, InsertNode and the like) work inside a transaction of
// the caller's; they are what backup and restore are made of.
//
// # Nodes
//
// A Node has twelve fields. Seven of them say how to reach a machine and what
// to install on it: the configuration, which people set. LastConnected,
// Status, Backends and Devices are what was seen of it: the state. The name is
// its identity and changes by RenameNode only.
//
// Unknown is a value of its own in every state field: the zero time,
// StatusUnknown, a nil slice, a nil map. An empty slice is not unknown: it
// says that the machine has no backend. AddNode keeps what is stored where the
// given state is unknown, so that adding a node again never erases what was
// learnt about it.
//
// Backends and Devices are independent: a device count may stand for a backend
// that is not listed, and a backend may have no count.
//
// Every write checks every field, and every read does too: what the package
// returns is valid. A row that somebody else wrote and that is not valid is
// ErrBadRow, with the row named; RemoveNode removes it all the same.
//
// # Concurrency
//
// A Registry may be used by any number of goroutines at once. Each operation
// is one transaction: a read sees one moment, and a read-modify-write such as
// UpdateNode excludes every other writer, also in other processes. The
// function given to UpdateNode must not call the Registry: it would wait for
// itself.
//
// # Audit
//
// Every change of configuration or capabilities adds an audit row in its own
// transaction: both are there afterwards or neither. Actions are node.add,
// node.update, node.rename, node.remove, node.capabilities, node.import and
// ssh-key.remove; the subject is the node's name (the old one for a rename,
// the source for an import, the fingerprint for a key), and the detail names
// each field that changed with its old and new value. Status and last contact
// are state that changes by itself: they are not audited. An operation that
// changes nothing writes neither a row nor an audit row.
//
// # Compatibility
//
// The table of nodes and the JSON form of a Node carry the twelve names of the
// registry that came before this one. ReadLegacy reads that registry's plain
// SQLite file, with ten or twelve columns, and Import takes what it found.
package registry
