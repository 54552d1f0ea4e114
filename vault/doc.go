// Package vault keeps an encrypted database, its keys, and what happened to it.
//
// # Keys
//
// The database file begins with the id of its key. Whoever holds the key, the OS
// keyring or a slot, files it under that id, so nothing else says which key is the
// current one. A slot is the key, encrypted with age to one recipient: an operator's
// own, a recovery identity, a service's credential, or an identity kept under a
// passphrase. The slots lie in the database; the slots file beside it is a rendering
// of them, which any opener writes anew.
//
// [Open] asks the first source that is present: identities, a passphrase, a systemd
// credential, the keyring. When that fails, no other is tried.
//
// # Durability
//
// [Create], [Restore] and [Vault.Rotate] are one transition: a new database is built
// under a new key, the key is filed everywhere, and then one rename or link puts the
// database in place. Whatever a kill leaves, the database in place decides, and the
// next open sweeps the rest. A committed [Vault.Update] is on the disk.
//
// # Concurrency
//
// A [Vault] is for many goroutines, and a vault for many processes; one process opens
// it once. Readers work beside a writer; writers wait for each other, of any process.
// A rotation waits for what is under way in its process, and wants the other
// processes gone.
//
// # Compatibility
//
// What was written once is read for ever: databases of older schemas are migrated
// when they are opened, after a copy was set aside; newer ones are refused.
package vault
