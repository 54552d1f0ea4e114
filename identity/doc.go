// Package identity handles age keys for a vault: recipients, to which a key is encrypted, and
// identities, which decrypt it. It supports age's own keys, SSH keys, the keys of age plugins,
// and identities under a passphrase. It does not know what a vault is.
//
// Start with [ParseRecipient], which reads a recipient, and [Parse], which reads an identity
// file. [Encrypt] and [Decrypt] work on short texts. [Lock] and [Unlock] put an identity under
// a passphrase.
//
// # Classes
//
// All recipients of one age file must be of one [Class], classic or post-quantum.
//
// # Plugins
//
// A plugin is a program that may hang, and age gives it no context. So a call of a plugin is
// abandoned when its context ends. See [Await].
//
// # Secrets
//
// The errors of [Parse] contain nothing of the file that it read. If the caller must wipe a
// result, the comment of the function says so.
package identity
