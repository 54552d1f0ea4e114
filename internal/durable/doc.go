// Package durable replaces files so that a crash at any moment leaves the old
// content or the new, and locks files between processes.
//
// # Durability
//
// A file is always written as a part beside its final name, flushed, and only
// then given the name, by rename where it may replace another file and by
// link where it must not. The directory is flushed last. Nothing here opens a
// file that a database connection of the same process has open: closing any
// descriptor of such a file would drop the process's locks on it.
package durable
