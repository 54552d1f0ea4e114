// Package bench measures what the encryption costs: each operation of the
// registry beside the same operation of a plaintext one, in one run.
//
//	go test -run '^$' -bench . ./bench
//
// The plaintext registry is the program in the directory plaintext: mattn's
// go-sqlite3, the same table and the same statements, a write-ahead log, every
// commit flushed. It is written as one would write it without a vault: a read
// is a single QueryRow or Query, without a transaction around it; an added node
// is one INSERT that commits by itself. There is no audit log, no lock between
// processes, and no check of what is read.
//
// Both sides work in turns of a few milliseconds, so that whatever else the
// machine does falls on both. Reported are the medians of the turns: ours as
// ns/op, the other's as plain-ns/op, and the median of the ratios of
// neighbouring turns as ratio.
package bench
