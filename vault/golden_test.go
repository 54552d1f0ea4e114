package vault

import (
	"os"
	"strings"
	"testing"
	"time"
)

// What can never change once a vault has been written with it.
const (
	goldenCheck     = "fec83a73b4b186794323583370102eae"
	goldenVaultID   = "0b5c5d1e-6d2c-4a43-9d0f-5f3f0a4d2b11"
	goldenSealed    = "01790a7bf0ba5a7d69693cbb580d31e29b83ca03a5681e10b51a595781b0ff97b11e5acc8b971bcbb20ac86433bb"
	goldenRowHash   = "ca87cf57170dc9104f817f95aa4992322aa321a77345bc46b4b451c681408fbd"
	goldenAuditHash = "fed45bab6c792d4e8b739b82b52bc7007ba5ce830cfd17f24260450be9899dfa"
)

// goldenDigest is the format of a digest.
var goldenDigest = "2:" + strings.Repeat("ab", 32) + ":1:" + strings.Repeat("cd", 32)

func goldenAuditRow() AuditRow {
	return AuditRow{
		Seq:     1,
		At:      time.UnixMilli(1700000000123).UTC(),
		Actor:   "ops(1000)@desk",
		Via:     "test",
		Action:  "node.add",
		Subject: "hive-01",
		Digest:  goldenDigest,
	}
}

// pipe returns the reading end of a pipe with the text.
func pipe(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	go func() {
		defer w.Close()
		w.WriteString(text)
	}()
	return r
}
