package backup

import (
	"archive/tar"
	"bytes"
	"time"
)

// tarWriter writes the headers of an archive whose members are compressed elsewhere, and
// members that are in memory.
type tarWriter struct {
	parts    *partWriter
	modified time.Time
}

// header writes the header of a member. The member and its padding follow.
func (t tarWriter) header(name string, size int64) error {
	header, err := tarHeader(name, size, t.modified)
	if err == nil {
		_, err = t.parts.Write(header)
	}
	return err
}

func tarHeader(name string, size int64, modified time.Time) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Format:   tar.FormatUSTAR,
		Typeflag: tar.TypeReg,
		Name:     name,
		Size:     size,
		Mode:     0o600,
		ModTime:  modified.Truncate(time.Second),
	})
	return b.Bytes(), err
}

// add writes a member.
func (t tarWriter) add(name string, data []byte) error {
	err := t.header(name, int64(len(data)))
	if err == nil {
		_, err = t.parts.Write(data)
	}
	if err == nil {
		_, err = t.parts.Write(tarPadding(int64(len(data))))
	}
	return err
}

// end writes the end of the archive.
func (t tarWriter) end() error {
	_, err := t.parts.Write(make([]byte, 2*tarBlock))
	return err
}

const tarBlock = 512

// tarPadding is what fills the last block of a member.
func tarPadding(size int64) []byte { return make([]byte, -size&(tarBlock-1)) }
