package hive_test

import (
	"bytes"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee-vault/internal/sshdtest"
)

func TestHostKeys(t *testing.T) {
	f := newFleet(t)
	server := sshdtest.Start(t, "")
	f.addServer(t, "hive-01", server)
	got, err := f.dialer().HostKeys(t.Context(), "hive-01")
	if err != nil {
		t.Fatal(err)
	}
	want := hostKeys(t, server)
	if len(got) != len(want) {
		t.Fatalf("%d keys, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Marshal(), want[i].Marshal()) {
			t.Errorf("key %d is %s", i, ssh.FingerprintSHA256(got[i]))
		}
	}
}
