package backup

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/rbee-keeper/rbee-vault/vault"
)

// zeros is n zero bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// sealed encrypts what write writes, while it is read. When the reader is closed, the writing
// ends.
func (f *forgery) sealed(write func(io.Writer) error) *io.PipeReader {
	r, w := io.Pipe()
	go func() {
		encrypted, err := age.Encrypt(w, f.identity.Recipient())
		if err == nil {
			err = write(encrypted)
		}
		if err == nil {
			err = encrypted.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// bomb writes a tar of the forgery's members up to one, which is that many zero bytes.
func (f *forgery) bomb(w io.Writer, name string, size int64) error {
	zipped := gzip.NewWriter(w)
	for _, m := range f.members {
		n := int64(len(m.data))
		content := io.Reader(bytes.NewReader(m.data))
		if m.header.Name == name {
			n, content = size, zeros(size)
		}
		head, err := tarHeader(m.header.Name, n, m.header.ModTime)
		if err != nil {
			return err
		}
		if _, err := zipped.Write(head); err != nil {
			return err
		}
		if _, err := io.Copy(zipped, content); err != nil {
			return err
		}
		if _, err := zipped.Write(tarPadding(n)); err != nil {
			return err
		}
	}
	return zipped.Close()
}

// TestBombs: a file that would take much memory or time is refused early. The reading ends long
// before the file does, and allocates little.
func TestBombs(t *testing.T) {
	const huge = 7 << 30
	f := richForgery(t)
	whole := f.seal(t, zip(f.pack()))
	tests := map[string]func() io.Reader{
		"a long header": func() io.Reader {
			stanza := "-> X25519 " + strings.Repeat("A", 43) + "\n" + strings.Repeat("A", 43) + "\n"
			return io.MultiReader(strings.NewReader("age-encryption.org/v1\n"), &repeated{text: stanza, n: 400 << 20})
		},
		"one long line in the header": func() io.Reader {
			return io.MultiReader(strings.NewReader("age-encryption.org/v1\n-> "), &repeated{text: "A", n: 400 << 20})
		},
		"padding behind the file": func() io.Reader { return io.MultiReader(bytes.NewReader(whole), zeros(huge)) },
		"padding behind gzip": func() io.Reader {
			return f.sealed(func(w io.Writer) error {
				_, err := io.Copy(w, io.MultiReader(bytes.NewReader(zip(f.pack())), zeros(huge)))
				return err
			})
		},
		"padding behind tar": func() io.Reader {
			return f.sealed(func(w io.Writer) error {
				zipped := gzip.NewWriter(w)
				_, err := io.Copy(zipped, io.MultiReader(bytes.NewReader(f.pack()), zeros(huge)))
				return err
			})
		},
	}
	for _, m := range f.members {
		tests["a huge "+m.header.Name] = func() io.Reader {
			return f.sealed(func(w io.Writer) error { return f.bomb(w, m.header.Name, huge) })
		}
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			r := &countingReader{r: file()}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Verify(t.Context(), r, ReadOptions{Identities: []age.Identity{f.identity}, Trust: TrustSigners(f.signer)})
			runtime.ReadMemStats(&after)
			if c, ok := r.r.(io.Closer); ok {
				c.Close()
			}
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, vault.ErrWrongKey) {
				t.Errorf("%v, want ErrDamaged", err)
			}
			// What the writer of the bomb allocates is in it.
			if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
				t.Errorf("%d MB were allocated", n>>20)
			}
			if r.n > 32<<20 {
				t.Errorf("%d MB were read", r.n>>20)
			}
		})
	}
}

// repeated is a text that repeats for n bytes.
type repeated struct {
	text string
	n    int
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) && r.n > 0 {
		p[n] = r.text[r.at%len(r.text)]
		n, r.at, r.n = n+1, r.at+1, r.n-1
	}
	if n == 0 {
		err = io.EOF
	}
	return n, err
}

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
