// Package backup writes a vault into one encrypted file, and makes a vault of
// it again.
//
// # The file
//
// age around gzip around tar, encrypted to every recipient that the vault has,
// so whoever can open the vault without its keyring can open its backups. The
// members are text that stock tools read: `age -d -i recovery.txt FILE | tar xz`
// unpacks them, `sha256sum -c SHA256SUMS` checks them, and `ssh-keygen -Y verify`
// checks the signature of SHA256SUMS. README.txt in it says how.
//
// # Trust
//
// age proves nothing about who wrote a file: anyone who knows the recipients
// could. So each vault signs its backups with a key of its own, and whoever
// reads one must say whose signature they expect; see [ReadOptions.Trust]. The
// fingerprint belongs on the recovery sheet, away from the file.
//
// # Durability
//
// [Create] takes a sequence number first, streams one snapshot of the vault, and
// gives the finished file its name last. [Restore] stages everything in a new
// database beside the target and puts it in place by one rename, only after the
// whole file was verified.
//
// # Concurrency
//
// All functions may be called at once. A backup reads one moment of the vault
// while others go on writing.
//
// # Compatibility
//
// The format's version stands in manifest.json. Every version that was ever
// written stays readable, and no old key is needed to read an old backup.
package backup
