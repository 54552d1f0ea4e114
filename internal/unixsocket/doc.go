// Package unixsocket makes a unix socket for our own user, takes over the one that systemd
// passes, and asks the kernel who connected.
package unixsocket
