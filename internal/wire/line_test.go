package wire

import (
	"testing"
	"time"
)

type lineOf struct {
	Text     string  `json:"text"`
	Nullable *string `json:"nullable"`
	Int      int64   `json:"int"`
	Time     string  `json:"time"`
}

// FuzzLine: a Line has the bytes of Marshal, and a Scan reads the values back or fails.
func FuzzLine(f *testing.F) {
	f.Add("plain", "", int64(0), int64(0))
	f.Add(`a "quoted" \ text`, "é\u2028\x7f<&>", int64(-1), int64(1_767_323_045_123))
	f.Add("\x00\t\n", "\xff", int64(1)<<62, int64(-1))
	f.Add(`\`, `"`, int64(999_999_999_999_999_999), int64(1))
	f.Fuzz(func(t *testing.T, text, nullable string, n, milli int64) {
		at := time.UnixMilli(milli % (1 << 47)).UTC()
		want, err := MarshalTexts(lineOf{text, Nullable(nullable), n, FormatTime(at)}, text, nullable)
		l := NewLine([]byte("before"))
		l.Text("text", text)
		l.Nullable("nullable", nullable)
		l.Int("int", n)
		l.Time("time", at)
		got, e := l.End()
		if (err == nil) != (e == nil) {
			t.Fatalf("%v, Marshal says %v", e, err)
		}
		if err != nil {
			return
		}
		if string(got) != "before"+string(want) {
			t.Fatalf("%s, want %s", got, want)
		}
		s := NewScan(string(want))
		s.Literal(`"text":`)
		readText := s.Text()
		s.Literal(`,"nullable":`)
		readNullable := s.Nullable()
		s.Literal(`,"int":`)
		readInt := s.Int()
		s.Literal(`,"time":`)
		readTime := s.Time()
		if s.End() && (readText != text || readNullable != nullable || readInt != n || !readTime.Equal(at)) {
			t.Errorf("%s is read as %q, %q, %d, %s", want, readText, readNullable, readInt, readTime)
		}
	})
}

// TestScanReads: what has no unusual characters is read, not left to another parser.
func TestScanReads(t *testing.T) {
	s := NewScan(`{"a":"","b":"x \"y\" \\","c":123}`)
	for _, want := range []string{"a", "b"} {
		s.Try(",")
		s.Literal(`"` + want + `":`)
		if text := s.Text(); want == "b" && text != `x "y" \` {
			t.Errorf("%q", text)
		}
	}
	s.Literal(`,"c":`)
	if n := s.Int(); n != 123 || !s.End() {
		t.Errorf("%d, %+v", n, s)
	}
	for _, bad := range []string{`{"a"`, `{"\n"}`, `{"é"}`, `{"\u0041"}`, `{"a`, `{"a\`, `{x}`} {
		s := NewScan(bad)
		if s.Text(); s.End() {
			t.Errorf("%s is read", bad)
		}
	}
}
