package main

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// png returns the page as a PNG.
func (p page) png() ([]byte, error) {
	sheet := image.NewGray(image.Rect(0, 0, pageWidth, pageHeight))
	defer clear(sheet.Pix)
	draw.Draw(sheet, sheet.Bounds(), image.White, image.Point{}, draw.Src)
	for _, r := range p.runs {
		draw.Draw(sheet, image.Rect(r.x, r.y, r.x+r.width, r.y+moduleSize), image.Black, image.Point{}, draw.Src)
	}
	for _, t := range p.texts {
		drawText(sheet, t)
	}
	var b bytes.Buffer
	err := png.Encode(&b, sheet)
	return b.Bytes(), err
}

// drawText draws a line in a font of 7 by 13 dots, each two pixels wide and high.
func drawText(sheet *image.Gray, t pageText) {
	face := basicfont.Face7x13
	line := image.NewGray(image.Rect(0, 0, face.Advance*len(t.text), face.Height))
	defer clear(line.Pix)
	d := font.Drawer{Dst: line, Src: image.White, Face: face, Dot: fixed.P(0, face.Ascent)}
	d.DrawString(t.text)
	const scale = cellWidth / 7
	for y := range line.Rect.Dy() {
		for x := range line.Rect.Dx() {
			if line.GrayAt(x, y).Y < 128 {
				continue
			}
			for dy := range scale {
				for dx := range scale {
					sheet.SetGray(t.x+x*scale+dx, t.y+y*scale+dy, color.Gray{})
				}
			}
		}
	}
}
