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

// maxLine bounds a line of a member, in bytes.
const maxLine = 1 << 20

// writeLines writes values as lines of JSON and stops at the first error.
func writeLines[T any](w io.Writer, values iter.Seq2[T, error]) error {
	for v, err := range values {
		if err != nil {
			return err
		}
		if err := writeLine(w, v); err != nil {
			return err
		}
	}
	return nil
}

// writeAll is writeLines for a slice.
func writeAll[T any](w io.Writer, values []T) error {
	for _, v := range values {
		if err := writeLine(w, v); err != nil {
			return err
		}
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	line, err := wire.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readLines parses one JSON value per line. What is parsed must encode to the
// same line again. count is the number of lines read; more than max are
// [ErrDamaged]. The caller takes max from the signed manifest, because the lines
// themselves are not verified yet.
func readLines[T any](r io.Reader, count *int64, max int64, use func(T) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := readLine(lines)
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if *count++; *count > max {
			return fmt.Errorf("%w: more lines than the manifest says", ErrDamaged)
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("line %d: %w", *count, err)
		}
		if again, err := wire.Marshal(v); err != nil || !bytes.Equal(again, line) {
			return fmt.Errorf("%w: line %d is not as it was written", ErrDamaged, *count)
		}
		if err := use(v); err != nil {
			return fmt.Errorf("line %d: %w", *count, err)
		}
	}
}

// readLine returns the next line without its end, or [io.EOF]. A last line
// without an end is an error.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("%w: a line of over %d bytes", ErrDamaged, maxLine)
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(line) > 0:
			return nil, fmt.Errorf("%w: its last line has no end", ErrDamaged)
		case err != nil:
			return nil, err
		default:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		}
	}
}
