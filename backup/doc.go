// Package backup writes a vault into one encrypted file and makes a vault from
// such a file again.
//
// Start from [Create], [Verify], [Restore], [ReadPart], [List] and [AddTarget]; [Prove] tries a
// restore out, [Prune] removes old files, and [Examine] looks whether all is well.
// [Manifest] describes a backup, and [Record] is what the vault has recorded about one.
//
// # File
//
// The file is a tar archive, compressed with gzip and encrypted with age to every
// recipient of the vault. Whoever can open the vault without its keyring can open
// its backups. The members are text that stock tools read: `age -d -i recovery.txt
// FILE | tar xz` unpacks them, `sha256sum -c SHA256SUMS` checks them, and
// `ssh-keygen -Y verify` checks the signature of SHA256SUMS. The member README.txt
// explains this. The function layout has the table of all members in their order.
//
// # Targets
//
// A [Target] is a directory or a prefix in a bucket; its [Store] keeps the files. An
// object is written by one request that never replaces another and needs no right
// but to write: there is no index and no lock beside it. Its name has 16 random hex
// digits, recorded before: if the answer to a request is lost, and the next one is
// told that the object exists, then it is ours. Nothing that a store says is trusted:
// names and times are hints, and reading lists versions, so that a delete marker hides
// nothing. [CheckTarget] tries what must not work.
//
// Without a credential of its own, a bucket is reached with that of the machine, as the
// AWS tools find it: environment, profile, the instance's role.
//
// # Trust
//
// age proves nothing about who wrote a file: anyone who knows the recipients can
// encrypt to them. So each vault signs its backups with its signing key, and the
// reader must say which signer is trusted; see [ReadOptions.Trust]. The signer's
// fingerprint is on the recovery sheet, which is kept away from the file.
//
// # Durability
//
// [Create] takes a sequence number in one transaction, with the copies' names, and
// reads the vault in a second into a file without a name. That is copied to each
// place, at once and outside any transaction: in a directory it is flushed, given its
// name, and the directory flushed. A third transaction records which copies are there.
// A crash leaves no file under a name, or a whole one. The record may still say "not
// completed" then.
//
// [Restore] stages everything in a new database beside the target. It verifies the
// whole file and only then puts the database in place by one rename.
//
// [ReadPart] keeps what it takes in memory until the whole file is verified.
// [Part.Merge] then writes it into a vault in place in one transaction, and its dry
// run is that transaction, rolled back.
//
// [Prove] does the same in a directory of its own, under a key that is kept nowhere.
// What a kill leaves of it, the next one removes. [Prune] commits what it is about to
// remove, removes it, and records that; a later run records what a kill left out.
//
// # Concurrency
//
// All functions are safe to call at once. Memory does not grow with the rows, but for
// 8 bytes a node. A backup shows one moment of the vault,
// and writers need not wait for it.
//
// # Audit
//
// Create writes the action backup.create: the subject is the sequence, the detail
// is the target and the extra recipients. Part.Merge writes the rows of package
// registry for each node and key, and then backup.merge: the subject is the sequence
// of the backup, the detail its vault, its time, the counts and the SHA-256 of its
// SHA256SUMS. Prove writes backup.drill (the sequence, the result), and Prune
// backup.prune before it removes anything (the place, the sequences). What changes no
// backup is not audited: that one was verified, or confirmed to hold the same as the
// vault. A restored vault's log continues the
// log in the backup; package vault writes the row about the restore.
//
// # Compatibility
//
// The version of the format is in manifest.json. Every version that was ever
// released stays readable. A backup needs no old key of the vault: the identity
// that opened the vault when the backup was made opens it. A format of a later
// program is [vault.ErrNewer].
package backup
