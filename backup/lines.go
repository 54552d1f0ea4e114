package backup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"

	"github.com/rbee-keeper/rbee-vault/internal/wire"
)

// maxLine bounds a line of a member, in bytes. Only an SSH key has longer ones: it names the
// nodes that use it.
const maxLine = 1 << 20

// lineWriter writes values as lines of JSON. It uses its memory again for each.
type lineWriter struct {
	w   io.Writer
	buf []byte
}

// appender is a value of which there are many. It encodes itself as [wire.Marshal] does.
type appender interface {
	AppendJSON(buf []byte) ([]byte, error)
}

func (l *lineWriter) write(v any) (err error) {
	if l.buf, err = appendLine(l.buf[:0], v); err != nil {
		return err
	}
	l.buf = append(l.buf, '\n')
	_, err = l.w.Write(l.buf)
	return err
}

// appendLine appends the JSON of a value.
func appendLine(buf []byte, v any) ([]byte, error) {
	if a, ok := v.(appender); ok {
		return a.AppendJSON(buf)
	}
	line, err := wire.Marshal(v)
	return append(buf, line...), err
}

// writeLines writes values as lines of JSON and stops at the first error.
func writeLines[T any](w io.Writer, values iter.Seq2[T, error]) error {
	lines := &lineWriter{w: w}
	for v, err := range values {
		if err != nil {
			return err
		}
		if err := lines.write(v); err != nil {
			return err
		}
	}
	return nil
}

// writeAll is writeLines for a slice.
func writeAll[T any](w io.Writer, values []T) error {
	lines := &lineWriter{w: w}
	for _, v := range values {
		if err := lines.write(v); err != nil {
			return err
		}
	}
	return nil
}

// readLines parses one JSON value per line. What is parsed must encode to the
// same line again. count is the number of lines read; more than max are
// [ErrDamaged]. The caller takes max from the signed manifest, because the lines
// themselves are not verified yet.
func readLines[T any, P interface {
	*T
	json.Unmarshaler
}](r io.Reader, count *int64, max int64, use func(T) error) error {
	return readLongLines[T, P](r, maxLine, count, max, use)
}

// readLongLines is readLines with another limit of a line.
func readLongLines[T any, P interface {
	*T
	json.Unmarshaler
}](r io.Reader, longest int64, count *int64, max int64, use func(T) error) error {
	lines := lineReader{r: bufio.NewReaderSize(r, 64<<10), max: longest}
	var again []byte
	for {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if *count++; *count > max {
			return fmt.Errorf("%w: more lines than the manifest says", ErrDamaged)
		}
		var v T
		if err := P(&v).UnmarshalJSON(line); err != nil {
			return fmt.Errorf("line %d: %w", *count, err)
		}
		if again, err = appendLine(again[:0], v); err != nil || !bytes.Equal(again, line) {
			return fmt.Errorf("%w: line %d is not as it was written", ErrDamaged, *count)
		}
		if err := use(v); err != nil {
			return fmt.Errorf("line %d: %w", *count, err)
		}
	}
}

// lineReader reads lines, and uses the memory of long ones again.
type lineReader struct {
	r    *bufio.Reader
	max  int64 // bytes of a line
	long []byte
}

// next returns the next line without its end, or [io.EOF]. It is valid until the next call. A
// last line without an end is an error.
func (l *lineReader) next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		switch {
		case err == nil && len(l.long) == 0:
			return part[:len(part)-1], nil
		case int64(len(l.long)+len(part)) > l.max:
			return nil, fmt.Errorf("%w: a line of over %d bytes", ErrDamaged, l.max)
		}
		l.long = append(l.long, part...)
		switch {
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(l.long) > 0:
			return nil, fmt.Errorf("%w: its last line has no end", ErrDamaged)
		case err != nil:
			return nil, err
		default:
			return l.long[:len(l.long)-1], nil
		}
	}
}
