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
	text   []byte // valid until the next line is read
	long   bool   // the line was too long; text is empty
}

// where names the line in a report.
func (l textLine) where() string { return fmt.Sprintf("line %d", l.number) }

// eachLine yields the lines of a file, without a byte order mark at its start. It
// holds one line in memory, and nothing of a line of more than maxLine bytes. A
// file of more than maxBytes is ErrInvalid.
func eachLine(r io.Reader, maxLine int, maxBytes int64) iter.Seq2[textLine, error] {
	return func(yield func(textLine, error) bool) {
		left := &io.LimitedReader{R: r, N: maxBytes + 1}
		in := bufio.NewReaderSize(left, 64<<10)
		var line textLine
		for {
			var err error
			line.number++
			line.text, line.long, err = readTextLine(in, line.text[:0], maxLine+len("\r\n"))
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
			if err == io.EOF && len(line.text) == 0 && !line.long {
				return // the last line had an end
			}
			if line.text = bytes.TrimRight(line.text, "\r\n"); len(line.text) > maxLine {
				line.text, line.long = line.text[:0], true
			}
			if !yield(line, nil) || err == io.EOF {
				return
			}
		}
	}
}

// readTextLine reads a line with its end into text. A line of more than max bytes
// is long, and text stays empty.
func readTextLine(in *bufio.Reader, text []byte, max int) (_ []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(text)+len(part) > max; long {
			text = text[:0]
		} else {
			text = append(text, part...)
		}
		if err != bufio.ErrBufferFull {
			return text, long, err
		}
	}
}
