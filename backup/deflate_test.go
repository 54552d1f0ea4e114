package backup

import (
	"bytes"
	"compress/gzip"
	"hash/crc32"
	"io"
	"os"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/rbee-keeper/rbee-vault/vault/vaulttest"
)

// TestParts: parts that were compressed apart are one gzip stream of what they hold, in any
// order.
func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var out bytes.Buffer
		out.Write(gzipHeader)
		w := newPartWriter(&out)
		var whole part
		var want []byte
		for _, data := range rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 0, 5).Draw(t, "parts") {
			w.Write(data)
			p, err := w.end()
			if err != nil {
				t.Fatal(err)
			}
			whole = whole.and(p)
			want = append(want, data...)
		}
		last, err := w.last()
		if err != nil {
			t.Fatal(err)
		}
		if whole = whole.and(last); whole.crc != crc32.ChecksumIEEE(want) || whole.size != int64(len(want)) || whole.compressed != int64(out.Len()-len(gzipHeader)) {
			t.Errorf("%+v, want the CRC %d, %d bytes, and %d compressed", whole, crc32.ChecksumIEEE(want), len(want), out.Len())
		}
		out.Write(whole.gzipTrailer())
		r, err := gzip.NewReader(&out)
		if err != nil {
			t.Fatal(err)
		}
		r.Multistream(false)
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) || out.Len() != 0 {
			t.Errorf("%q, want %q: %v; %d bytes follow", got, want, err, out.Len())
		}
	})
}

// TestSpool: a spool has no name, its file is not what was written, and a change of the file is
// noticed.
func TestSpool(t *testing.T) {
	dir := vaulttest.Dir(t)
	s, err := newSpool(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	secret := bytes.Repeat([]byte("BEGIN OPENSSH PRIVATE KEY"), 10_000)
	s.Write(secret)
	r, err := s.reader()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	file, err := io.ReadAll(io.NewSectionReader(s.file, 0, 1<<30))
	if err != nil || len(file) < len(secret) || bytes.Contains(file, []byte("PRIVATE KEY")) {
		t.Errorf("%d bytes in the file, %v", len(file), err)
	}
	if _, err := s.file.WriteAt([]byte("x"), int64(len(file)/2)); err != nil {
		t.Fatal(err)
	}
	if r, err = age.Decrypt(io.NewSectionReader(s.file, 0, int64(len(file))), s.key); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a changed spool is read")
	}
}

// TestAhead: values come in their order, an error after those before it, and nothing is left
// running when the reader stops.
func TestAhead(t *testing.T) {
	const n = 3*batchSize + 7
	ended := make(chan int, 1)
	numbers := func(fail error) func(func(int, error) bool) {
		return func(yield func(int, error) bool) {
			made := 0
			defer func() { ended <- made }()
			for ; made < n; made++ {
				if !yield(made, nil) {
					return
				}
			}
			if fail != nil {
				yield(0, fail)
			}
		}
	}
	for _, fail := range []error{nil, io.ErrUnexpectedEOF} {
		next := 0
		var failed error
		for v, err := range ahead(numbers(fail)) {
			if err != nil {
				failed = err
			} else if v != next {
				t.Fatalf("%d, want %d", v, next)
			} else {
				next++
			}
		}
		if <-ended; next != n || failed != fail {
			t.Errorf("%d values and %v, want %d and %v", next, failed, n, fail)
		}
	}
	for range ahead(numbers(nil)) {
		break
	}
	select {
	case <-ended:
	default:
		t.Error("the values are still made")
	}
}
