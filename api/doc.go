// Package api is the registry over HTTP, for programs in other languages.
//
// Start with [New] and [Server.Serve]. A [Server] listens on a unix socket, where the
// kernel says whose process connected, or on the loopback interface, where our own user's
// connections are told by the kernel's table of sockets, and any other needs a token.
// openapi.json describes every route; the server answers it at /openapi.json.
//
// # Routes
//
// The routes of the earlier registry's keeper are as it knows them: GET /health, and
// add, list and remove under /v2/registry/beehives. Beside them
//
//	GET, PUT, PATCH, DELETE  /v2/registry/beehives/{name}       one node, with an ETag
//	POST                     /v2/registry/beehives/states       many states at once
//	POST                     /v2/registry/beehives/{name}/sign  a login, by the agent's rules
//	GET                      /v2/registry/watch                 changes, as server-sent events
//	GET                      /metrics                           in the text format of Prometheus
//
// A change is in the vault, and its audit row with it, before the answer is sent.
//
// # Errors
//
// An error is an object {"error": {"code", "name", "message", "hint"}}, with the code and
// the name that the command has for it. The keeper's routes answer errors as it expects.
//
// # Long life
//
// The registry is borrowed for each request; see [Lender]. So a server goes on through a
// rotation by another process: requests wait meanwhile.
//
// # Concurrency
//
// A Server is safe for concurrent use. No goroutine is left when [Server.Serve] has
// returned.
package api
