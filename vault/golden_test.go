package vault

import (
	"os"
	"testing"
	"time"
)

// What is fixed for ever once a vault has been written with it.
const (
	goldenCheck     = "fec83a73b4b186794323583370102eae"
	goldenVaultID   = "0b5c5d1e-6d2c-4a43-9d0f-5f3f0a4d2b11"
	goldenSealed    = "01790a7bf0ba5a7d69693cbb580d31e29b83ca03a5681e10b51a595781b0ff97b11e5acc8b971bcbb20ac86433bb"
	goldenAuditHash = "64aeefa995078bb9a2ecce08f26bcd89617e0bc1b424bc4713eeca0e93d4ad99"
)

func goldenAuditRow() AuditRow {
	return AuditRow{
		Seq:     1,
		At:      time.UnixMilli(1700000000123).UTC(),
		Actor:   "ops(1000)@desk",
		Via:     "test",
		Action:  "node.add",
		Subject: "hive-01",
	}
}

// pipe returns the reading end of a pipe that holds the text.
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
