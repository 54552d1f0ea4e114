package durable

// networkFS names the file systems, by the number that statfs gives, on which a
// lock may hold off this machine alone, or a flush reach nobody's disk. What a
// program serves through FUSE cannot be told.
var networkFS = map[uint32]string{
	0x6969:     "NFS",
	0xff534d42: "CIFS",
	0x517b:     "SMB",
	0xfe534d42: "SMB",
	0x01021997: "9p",
	0x65735546: "FUSE",
}
