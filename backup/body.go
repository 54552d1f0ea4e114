package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

// body is what an archive has behind SHA256SUMS and its signature. Each member is summed and
// compressed while it is written, and goes to the spool: its tar header comes before it, and
// SHA256SUMS before all of them, and neither can be written earlier.
//
// A body works in a goroutine of its own, beside the one that reads the vault.
type body struct {
	blocks chan block
	unused chan []byte // memory of blocks that are done
	block  []byte      // what was written last
	failed chan error  // what went wrong; closed when the goroutine has ended

	// The goroutine's own until it has ended:
	parts   *partWriter
	hash    hash.Hash
	size    int64 // of the member
	members []bodyMember
}

// block is a part of a member. The last of a member says which one it was.
type block struct {
	data []byte
	of   *member
}

// bodyMember is a member that was written.
type bodyMember struct {
	sum
	content bool
	size    int64
	part    part // with the zero bytes behind it
}

const (
	blockSize = 256 << 10
	maxBlocks = 4
)

// newBody returns a body that is written to w. The caller ends it.
func newBody(w io.Writer) *body {
	b := &body{
		blocks: make(chan block, maxBlocks),
		unused: make(chan []byte, maxBlocks+2),
		block:  make([]byte, 0, blockSize),
		failed: make(chan error, 1),
		parts:  newPartWriter(w),
		hash:   sha256.New(),
	}
	for range maxBlocks + 1 {
		b.unused <- make([]byte, 0, blockSize)
	}
	go b.run()
	return b
}

// Write implements [io.Writer]. It reports no error: end does.
func (b *body) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if len(b.block) == blockSize {
			b.send(nil)
		}
		n := copy(b.block[len(b.block):blockSize], rest)
		b.block, rest = b.block[:len(b.block)+n], rest[n:]
	}
	return len(p), nil
}

// endMember ends a member.
func (b *body) endMember(m member) { b.send(&m) }

func (b *body) send(of *member) {
	b.blocks <- block{b.block, of}
	b.block = <-b.unused
}

// end waits until all is written. It may be called again.
func (b *body) end() error {
	if b.block != nil {
		b.block = nil
		close(b.blocks)
	}
	return <-b.failed
}

func (b *body) run() {
	defer close(b.failed)
	var err error
	for next := range b.blocks {
		if err == nil {
			err = b.add(next)
		}
		clear(next.data) // it may be a private key
		b.unused <- next.data[:0]
	}
	if err != nil {
		b.failed <- err
	}
}

func (b *body) add(next block) error {
	b.hash.Write(next.data)
	b.size += int64(len(next.data))
	if _, err := b.parts.Write(next.data); err != nil || next.of == nil {
		return err
	}
	if _, err := b.parts.Write(tarPadding(b.size)); err != nil {
		return err
	}
	p, err := b.parts.end()
	if err != nil {
		return err
	}
	b.members = append(b.members, bodyMember{
		sum:     sum{next.of.name, hex.EncodeToString(b.hash.Sum(nil))},
		content: next.of.content,
		size:    b.size,
		part:    p,
	})
	b.hash.Reset()
	b.size = 0
	return nil
}
