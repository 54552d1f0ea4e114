package durable_test

import (
	"testing"

	"github.com/rbee-keeper/rbee-vault/internal/durable"
)

func TestNetworkFS(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/proc", "/dev"} {
		if name, err := durable.NetworkFS(dir); name != "" || err != nil {
			t.Errorf("%s: %q, %v", dir, name, err)
		}
	}
	if _, err := durable.NetworkFS("/absent"); err == nil {
		t.Error("no error for a directory that is not there")
	}
	// The numbers in linux/magic.h and in the sources of these file systems.
	for magic, want := range map[uint32]string{
		0x6969: "NFS", 0xff534d42: "CIFS", 0x517b: "SMB", 0xfe534d42: "SMB", 0x01021997: "9p", 0x65735546: "FUSE",
		0xef53: "", 0x58465342: "", 0x9123683e: "", 0x01021994: "", 0x794c7630: "", // ext4, XFS, btrfs, tmpfs, overlay
	} {
		if got := durable.NetworkName(magic); got != want {
			t.Errorf("%#x: %q, want %q", magic, got, want)
		}
	}
}
