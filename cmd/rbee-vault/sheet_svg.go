package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
)

// svg returns the page as an SVG.
func (p page) svg() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm" viewBox="0 0 %d %d">
<rect width="100%%" height="100%%" fill="white"/>
<g shape-rendering="crispEdges">
`, pageWidth, pageHeight)
	for _, r := range p.runs {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d"/>`+"\n", r.x, r.y, r.width, moduleSize)
	}
	b.WriteString("</g>\n" + `<g font-family="Courier, monospace" font-size="23" style="white-space: pre">` + "\n")
	for _, t := range p.texts {
		if t.text == "" {
			continue
		}
		fmt.Fprintf(&b, `<text xml:space="preserve" x="%d" y="%d" textLength="%d" lengthAdjust="spacingAndGlyphs">`, t.x, t.y+20, cellWidth*len(t.text))
		if err := xml.EscapeText(&b, []byte(t.text)); err != nil {
			return nil, err
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g>\n</svg>\n")
	return b.Bytes(), nil
}
