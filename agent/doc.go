// Package agent is an SSH agent whose keys answer only for their own hosts.
//
// Start with [New] and [Server.Serve]; [Listen] makes the socket. Any OpenSSH client of
// version 8.9 or later is a client.
//
// # Binding
//
// An SSH client binds its connection: it passes on the host key and the server's signature
// over the session id, which proves that the host of this session holds the key. A key is
// then listed, and signs, only if one of the nodes that use it has this host key pinned.
// It signs the login to that session, and nothing else. So a program that can reach the
// socket cannot use a key for a host of its own, and a host that is not pinned learns
// not even which keys there are.
//
// A connection that is not bound lists and signs nothing. Nor does one with a bind for
// forwarding, or with a bind that was refused, whatever it does afterwards: the remote
// host may be at its other end. A jump through a pinned host works, because each hop has
// a connection of its own. A host certificate counts as the key in it.
//
// [Config].AllowUnbound is the exception: such a key signs files, as git does, on
// connections that are not bound. What it signs cannot be a login.
//
// # Keys
//
// Keys, nodes and pins are those of the registry at the moment of the request, whichever
// process changed them. A private key that signed stays in memory, parsed, for a minute at
// most ([registry.KeyCache]); it signs only while its row is the same, which each signature
// compares. It is dropped when the agent is locked, when the vault is closed, as for a
// rotation, and when Serve returns. Clients cannot add or remove keys. RSA signs with SHA-2
// only.
//
// A client locks the agent with a passphrase, and it may lock itself when it was idle. A
// locked agent lists and signs nothing. After a wrong passphrase the next attempt waits.
//
// # Audit
//
// Each signature has its row in the audit log before it leaves: key, nodes, user, and the
// process that asked. The transaction that writes the row also sees that the key may be used,
// and the signature is made while it commits. What was refused is in the log of the program, with its cause.
//
// # Concurrency
//
// A Server has a goroutine for each connection, and none when Serve has returned. The
// signatures of many connections share the transactions of the audit log: those that come
// while one commits wait for the next.
package agent
