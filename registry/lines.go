package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
)

// textLine is a line of a file, without its end.
type textLine struct {
	number int    // from 1
	text   []byte // until the next line is read
	long   bool   // it was too long, and was skipped
}

// where names the line in a report.
func (l textLine) where() string { return fmt.Sprintf("line %d", l.number) }

// eachLine yields the lines of a file, without a byte order mark at its beginning.
// It holds one line at a time, and of one that has more than maxLine bytes nothing.
// A file of more than maxBytes is ErrInvalid.
func eachLine(r io.Reader, maxLine int, maxBytes int64) iter.Seq2[textLine, error] {
	return func(yield func(textLine, error) bool) {
		left := &io.LimitedReader{R: r, N: maxBytes + 1}
		in := bufio.NewReaderSize(left, 64<<10)
		var line textLine
		for {
			line = textLine{number: line.number + 1, text: line.text[:0]}
			var err error
			for more := true; more; more = err == bufio.ErrBufferFull {
				var part []byte
				part, err = in.ReadSlice('\n')
				if line.long = line.long || len(line.text)+len(part) > maxLine+2; line.long { // with its end
					line.text = line.text[:0]
				} else {
					line.text = append(line.text, part...)
				}
			}
			switch {
			case err != nil && err != io.EOF:
				yield(textLine{}, fmt.Errorf("line %d: %w", line.number, err))
				return
			case left.N <= 0:
				yield(textLine{}, fmt.Errorf("%w: it has more than %d MB", ErrInvalid, maxBytes>>20))
				return
			}
			if line.number == 1 {
				line.text = bytes.TrimPrefix(line.text, []byte("\xef\xbb\xbf"))
			}
			end := err == io.EOF && len(line.text) == 0 && !line.long
			if line.text = bytes.TrimRight(line.text, "\r\n"); len(line.text) > maxLine {
				line.text, line.long = line.text[:0], true
			}
			if end || !yield(line, nil) || err == io.EOF {
				return
			}
		}
	}
}
