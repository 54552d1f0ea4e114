// Package durable replaces files so that a crash at any time leaves either the old content or
// the new, and locks files between processes.
//
// Start with [Replace] and [Create], which write a file, and with [Lock]. [FS] is the file
// system that they use.
//
// # Durability
//
// A file is always written as a part beside its final name and flushed. Only then it gets its
// name: by rename if it may replace another file, by link if it must not. The directory is
// flushed last.
//
// Nothing here opens a file that a database connection of the same process has open. Closing
// any descriptor of such a file would drop the process's locks on it.
package durable
