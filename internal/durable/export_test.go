package durable

// NetworkName returns the name of a file system by its number.
func NetworkName(magic uint32) string { return networkFS[magic] }
