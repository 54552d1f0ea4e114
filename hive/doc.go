// Package hive goes from a node of the registry to a connection with it.
//
// Start with a [Dialer]: [Dialer.Dial] gives an SSH client, [Dialer.Probe] reports how a
// node answers, [Dialer.HostKeys] fetches the keys of a host that is not pinned yet, and
// [Conn.Discover] asks what the machine has.
//
// # Trust
//
// The host key is compared with the pins of the node before anything else is sent. There is
// no trust on first use: an unknown key and a changed one are errors of their own, which
// carry the key, so that a person can decide. Only algorithms of the pinned types are
// offered: a server that is asked for another type presents another key, and looks changed.
//
// # Jumps
//
// A node that names a proxy jump is reached through that node of the registry, and so on,
// the outermost first. Each of them is logged in to with its own key, and compared with its
// own pins; it only carries the bytes of the next. An [Error] says which of them failed.
//
// # Keys
//
// The key is the one that the node uses in the vault. It is unsealed for each signature and
// never leaves the process. A node without one uses the file that its path names, or the
// operator's own agent where the Dialer has it. A server is not asked to authenticate us
// where there is no key: it would count that as a failure, and may block the address.
//
// [Conn.Authorize] adds a key on the node. To replace one, [Conn.AuthorizeLike] adds the new
// key with the options of the old one, and [Conn.Deauthorize] removes the old one, where the
// new one is there. All of them replace the file as a whole or leave it alone.
//
// # Concurrency
//
// A Dialer is for many goroutines. One address gets few dials at a time, because a server
// drops connections beyond a number of unauthenticated ones; a server that does is busy,
// not offline.
package hive
