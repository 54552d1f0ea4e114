package backup

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// part is a piece of a gzip stream that was compressed by itself and ends at a whole byte. So
// pieces that were compressed earlier can follow one that could be written only later: a tar
// header has the size of what follows it.
type part struct {
	size       int64 // bytes before compression
	compressed int64
	crc        uint32
}

// partWriter compresses parts, one after the other, into w.
type partWriter struct {
	w   io.Writer
	zip *flate.Writer
	now part // the one that is being written
}

// compression is flate's level. The third costs a fifth of the sixth's time, and the size is
// nearly the same: most of a large backup is hashes.
const compression = 3

func newPartWriter(w io.Writer) *partWriter {
	p := &partWriter{w: w}
	p.zip, _ = flate.NewWriter((*countedPart)(p), compression) // fails for a wrong level only
	return p
}

// countedPart is where the compressor of a partWriter writes to.
type countedPart partWriter

// Write implements [io.Writer].
func (c *countedPart) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.now.compressed += int64(n)
	return n, err
}

// Write implements [io.Writer].
func (p *partWriter) Write(b []byte) (int, error) {
	p.now.size += int64(len(b))
	p.now.crc = crc32.Update(p.now.crc, crc32.IEEETable, b)
	return p.zip.Write(b)
}

// end ends a part. What follows it does not refer to it, so it may be put behind any other.
func (p *partWriter) end() (part, error) {
	err := p.zip.Flush()
	return p.take(), err
}

// last ends the part behind which no other may follow.
func (p *partWriter) last() (part, error) {
	err := p.zip.Close()
	return p.take(), err
}

func (p *partWriter) take() part {
	done := p.now
	p.now = part{}
	p.zip.Reset((*countedPart)(p))
	return done
}

// gzipHeader begins a gzip stream: deflate, no name, no time, no operating system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

// gzipTrailer ends the gzip stream of a part.
func (p part) gzipTrailer() []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, p.crc), uint32(p.size))
}

// and is two parts, one behind the other.
func (p part) and(next part) part {
	return part{
		size:       p.size + next.size,
		compressed: p.compressed + next.compressed,
		crc:        crcBehind(p.crc, next.size) ^ next.crc,
	}
}

// crcBehind moves a CRC-32 over n bytes that follow. A CRC is the remainder of a polynomial
// over GF(2), so that is a multiplication by x^(8n). The highest bit stands for x^0.
func crcBehind(crc uint32, n int64) uint32 {
	for power := uint32(1 << (31 - 8)); n > 0; n >>= 1 {
		if n&1 != 0 {
			crc = crcMultiply(crc, power)
		}
		power = crcMultiply(power, power)
	}
	return crc
}

func crcMultiply(a, b uint32) (product uint32) {
	for bit := uint32(1 << 31); bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.IEEE&-(b&1)
	}
	return product
}
