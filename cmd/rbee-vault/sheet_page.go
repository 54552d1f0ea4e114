package main

import (
	"errors"
	"image/color"
	"slices"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// The page, A4 at 200 dots an inch. A character is drawn in a cell.
const (
	pageWidth   = 1654
	pageHeight  = 2339
	pageMargin  = 112
	cellWidth   = 14
	cellHeight  = 27
	pageColumns = (pageWidth - 2*pageMargin) / cellWidth
	moduleSize  = 10 // of the QR code
	quietZone   = 4 * moduleSize
	groupsALine = 4
)

// page is a drawing: lines of text, and the black runs of a QR code.
type page struct {
	texts []pageText
	runs  []pageRun
}

// pageText is a line of ASCII. x and y are the upper left corner of its first cell.
type pageText struct {
	x, y int
	text string
}

// pageRun is a black rectangle as high as a module of the QR code.
type pageRun struct{ x, y, width int }

// newPage draws the text of a sheet, without its comment signs. The line that is the groups
// in one becomes a QR code with the groups beside it; without such a line, that of the second,
// which is empty.
func newPage(text string, groups []string) (page, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	code := max(slices.Index(lines, strings.Join(groups, "")), 1)
	p, y := page{}, pageMargin
	for i, line := range lines {
		if i == code {
			height, err := p.drawCode(y, groups)
			if err != nil {
				return page{}, err
			}
			y += height
			continue
		}
		line = strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		for _, part := range wrapLine(printable(line)) {
			p.texts = append(p.texts, pageText{pageMargin, y, part})
			y += cellHeight
		}
	}
	if y > pageHeight-pageMargin {
		return page{}, errors.New("the sheet does not fit on a page")
	}
	return p, nil
}

// drawCode draws the QR code, and the groups beside it. It returns the height of both.
func (p *page) drawCode(y int, groups []string) (height int, err error) {
	// Level Q: a quarter of the code may be unreadable, as a fold or a stain makes it.
	code, err := qr.Encode(strings.Join(groups, ""), qr.Q, qr.Auto)
	if err != nil {
		return 0, errors.New("the sheet's QR code cannot be made") // the error may hold the content
	}
	size := code.Bounds().Dx()
	left := pageMargin + quietZone
	for row := range size {
		for column := 0; column < size; column++ {
			start := column
			for column < size && code.At(column, row) == color.Black {
				column++
			}
			if column > start {
				p.runs = append(p.runs, pageRun{left + start*moduleSize, y + quietZone + row*moduleSize, (column - start) * moduleSize})
			}
		}
	}
	height = size*moduleSize + 2*quietZone
	beside := left + size*moduleSize + quietZone
	lines := groups[:1:1]
	for rest := groups[1:]; len(rest) > 0; {
		n := min(groupsALine, len(rest))
		lines, rest = append(lines, strings.Join(rest[:n], "  ")), rest[n:]
	}
	top := y + (height-2*cellHeight*len(lines))/2
	for i, line := range lines {
		p.texts = append(p.texts, pageText{beside, top + 2*cellHeight*i, line})
	}
	return height, nil
}

// wrapLine divides a line that is too long for the page, at spaces where there are some.
func wrapLine(line string) (parts []string) {
	for len(line) > pageColumns {
		at := strings.LastIndexByte(line[:pageColumns], ' ')
		if strings.TrimSpace(line[:max(at, 0)]) == "" {
			at = pageColumns
		}
		parts, line = append(parts, line[:at]), "        "+strings.TrimLeft(line[at:], " ")
	}
	return append(parts, line)
}

// printable returns ASCII: the fonts have nothing else.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
