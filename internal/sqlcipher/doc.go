// Package sqlcipher opens one SQLite database file that is encrypted under a raw key. It is the
// only package that uses the SQLCipher driver.
//
// Start with [Options] and [Open], which returns a [DB]. [DB.View] and [DB.Update] run
// transactions.
//
// # Files
//
// The first 16 bytes of the file are its salt, which is readable without a key: see [ReadSalt].
// SQLite's own files are beside it: see [SideFiles].
//
// While this process has a database open, nothing else in the process may open that file or its
// side files. Closing any descriptor drops all of the process's POSIX locks on the file, and
// then another process deletes the write-ahead log in use. So whoever opens a database must
// hold a [Claim] on it.
//
// # Concurrency
//
// A DB is safe for concurrent use. But the SQLite in the driver can lose a commit that restarts
// the write-ahead log while another connection checkpoints. So no connection checkpoints by
// itself. And the caller must hold one lock, common to all processes, for each [DB.Update], for
// each checkpoint, and if possible for [DB.Close].
//
// # Durability
//
// When Update returns nil, the change is on the disk. A database that is being built
// ([Options.Build]) is not flushed at all: the caller flushes the finished file.
package sqlcipher
