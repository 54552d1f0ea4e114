// Package vault keeps an encrypted database, its keys, and an audit log of what happened to it.
//
// Start with [Config] and [Open], which returns a [Vault]. [Vault.View] and [Vault.Update] run
// transactions ([Tx]); [Tx.Audit] writes the audit log. [Create] and [Restore] make a vault,
// [Vault.Rotate] gives it a new key, [Examine] checks it, [Destroy] removes it.
//
// # Keys
//
// The first 16 bytes of the database file are the id of its key. Every place that stores the
// key stores it under that id: the OS keyring, and the slots. So nothing else has to say which
// key is the current one.
//
// A slot is the key, encrypted with age to one recipient. The recipient is an operator's own
// key, a recovery identity, the credential of a service, or an identity that is stored in the
// slot under a passphrase. The slots are a table of the database. The slots file beside the
// database is written from that table. If an opener finds that the file differs, it writes the
// file again.
//
// [Open] asks the first source of the key that is present. The sources are, in this order:
// identities, a systemd credential, the keyring, a passphrase. If that source fails, no other
// source is tried.
//
// # Durability
//
// [Create], [Restore] and [Vault.Rotate] are the same transition. It builds a new database
// under a new key, stores the key in every slot and in the keyring, and puts the database in
// place by one rename or link. After a kill at any point, the database in place decides what is
// valid. The next open removes the rest. When [Vault.Update] returns nil, the change is on the
// disk.
//
// Two things protect against older copies of the database. The anchor, an item of the keyring, is
// a high-water mark: it stores how far the audit log had come. And each audit row holds a digest
// of all rows.
//
// # Concurrency
//
// A [Vault] is safe for many goroutines. Many processes may open one vault, but each process
// opens it only once. Readers do not wait for a writer. Writers wait for each other, in all
// processes; those of one process that wait share a commit and its flush. A rotation waits for the
// running transactions of its own process. It needs all other processes to close the vault.
//
// # Compatibility
//
// Everything that a released version wrote can be read by all later versions. A database with
// an older schema is migrated when it is opened; a copy is set aside first. A database with a
// newer schema is refused.
package vault
