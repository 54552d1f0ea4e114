package registry

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// endless repeats a text.
type endless struct {
	text  string
	at    int
	total int
}

// Read implements [io.Reader].
func (e *endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], e.text[e.at:])
		n, e.at = n+c, (e.at+c)%len(e.text)
	}
	e.total += n
	return n, nil
}

func TestEachLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		"a":                    "1a",
		"a\n":                  "1a",
		"a\r\n\nb":             "1a 2 3b",
		"\xef\xbb\xbfa\n":      "1a",
		"a\n\xef\xbb\xbfb\n":   "1a 2\xef\xbb\xbfb",
		"12345678\nx":          "112345678 2x",
		"123456789\nx":         "1(long) 2x",
		"x\n" + "123456789012": "1x 2(long)",
	} {
		var got []string
		for line, err := range eachLine(strings.NewReader(in), 8, 1<<20) {
			if err != nil {
				t.Fatal(err)
			}
			text := string(line.text)
			if line.long {
				text = "(long)"
			}
			got = append(got, strings.TrimPrefix(line.where(), "line ")+text)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %q, want %q", in, s, want)
		}
	}
	broken := io.MultiReader(strings.NewReader("a\nb"), iotestErr{})
	var last error
	for _, err := range eachLine(broken, 8, 1<<20) {
		last = err
	}
	if !errors.Is(last, io.ErrClosedPipe) {
		t.Errorf("%v", last)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestImportCaps: rows that are not nodes are not kept in memory, however many there are.
func TestImportCaps(t *testing.T) {
	for name, text := range map[string]string{
		"objects":     "{}\n",
		"one line":    "x",
		"blank lines": strings.Repeat(" ", 60<<10) + "\n",
		"long lines":  strings.Repeat("x", 1<<20) + "\n",
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		in := &endless{text: text}
		set, err := ReadNDJSON(in)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrInvalid) || set.Nodes != nil || set.Skipped != nil {
			t.Errorf("%s: %v, %v", name, set, err)
		}
		most := maxNodeBytes
		if name == "objects" {
			most = len(text) * MaxImport
		}
		if in.total > most+1<<20 {
			t.Errorf("%s: read %d MB", name, in.total>>20)
		}
		if name != "objects" && after.TotalAlloc-before.TotalAlloc > 4<<20 {
			t.Errorf("%s took %d MB", name, (after.TotalAlloc-before.TotalAlloc)>>20)
		}
	}
	nodes := endless{text: strings.ReplaceAll(bareNodeJSON, "\n", "") + "\n"}
	if _, err := ReadNDJSON(&nodes); !errors.Is(err, ErrInvalid) || nodes.total > len(nodes.text)*MaxImport+1<<20 {
		t.Errorf("nodes: %v, after %d MB", err, nodes.total>>20)
	}
}
