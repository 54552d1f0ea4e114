package main

import (
	"bytes"
	"fmt"
	"strings"
)

// point is a dot of the page in points, the unit of PDF.
const point = 72.0 / 200

// pdf returns the page as a PDF: one page, in the standard font Courier, and not compressed.
func (p page) pdf() ([]byte, error) {
	var content bytes.Buffer
	defer func() { clear(content.Bytes()) }()
	for _, r := range p.runs {
		fmt.Fprintf(&content, "%.2f %.2f %.2f %.2f re f\n", float64(r.x)*point, float64(pageHeight-r.y-moduleSize)*point, float64(r.width)*point, moduleSize*point)
	}
	escape := strings.NewReplacer(`\`, `\\`, `(`, `\(`, `)`, `\)`)
	for _, t := range p.texts {
		// A character of Courier is 0.6 of the font's size wide; its base line is at 0.8.
		const size = cellWidth * point / 0.6
		fmt.Fprintf(&content, "BT /F1 %.2f Tf %.2f %.2f Td (%s) Tj ET\n", size, float64(t.x)*point, float64(pageHeight-t.y)*point-size*0.8, escape.Replace(t.text))
	}
	objects := []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
		fmt.Sprintf("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Contents 5 0 R /Resources << /Font << /F1 4 0 R >> >> >>", pageWidth*point, pageHeight*point),
		"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
		fmt.Sprintf("<< /Length %d >>\nstream\n%sendstream", content.Len(), content.Bytes()),
	}
	var b bytes.Buffer
	b.WriteString("%PDF-1.4\n")
	var table strings.Builder
	for i, object := range objects {
		fmt.Fprintf(&table, "%010d 00000 n \n", b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, object)
	}
	start := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, table.String(), len(objects)+1, start)
	return b.Bytes(), nil
}
