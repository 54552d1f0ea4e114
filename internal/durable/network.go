package durable

// networkFS names the file systems on which a lock may only work within this machine, or a
// flush may reach no disk. The key is the number that statfs returns. Behind FUSE there may be
// any program, so nothing is known about it.
var networkFS = map[uint32]string{
	0x6969:     "NFS",
	0xff534d42: "CIFS",
	0x517b:     "SMB",
	0xfe534d42: "SMB",
	0x01021997: "9p",
	0x65735546: "FUSE",
}
