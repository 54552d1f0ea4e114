// Package sqlcipher keeps one SQLite database file that is encrypted under a raw key. It
// alone knows the SQLCipher driver.
//
// # Files
//
// The first 16 bytes of the file are its salt, readable without a key: see [ReadSalt].
// Beside the file stand SQLite's own: see [SideFiles]. While this process has a database
// open, nothing else in it may open the file or the files beside it: closing any
// descriptor drops all of the process's POSIX locks on the file, and another process then
// deletes the write-ahead log in use. So whoever opens a database holds a [Claim] on it.
//
// # Locks
//
// The SQLite under the driver can lose a commit that restarts the write-ahead log while
// another connection checkpoints. So no connection checkpoints by itself, and the caller
// holds one lock of all processes around each [DB.Update], each checkpoint, and where it
// can around [DB.Close].
//
// # Durability
//
// When Update returns nil the change is on the disk. A database that is being built
// ([Options.Build]) is not flushed at all: the caller flushes the finished file.
package sqlcipher
