// Package identity is what age is to a vault: recipients, to which a key is encrypted, and
// identities, which decrypt it. It knows age's own keys, SSH keys, the keys of age plugins,
// and identities under a passphrase. It knows no vault.
//
// An age file can be encrypted to recipients of one [Class] only.
//
// A plugin is a program that may hang, and age gives it no context: what calls one is left
// behind when its context ends.
package identity
