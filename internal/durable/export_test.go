package durable

// NetworkName names the file system of a number.
func NetworkName(magic uint32) string { return networkFS[magic] }
