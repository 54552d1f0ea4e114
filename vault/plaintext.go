package vault

// PlaintextError gives an error of a database that [OpenPlaintext] opened this
// package's sentinels: [ErrDamaged] for a file that is damaged.
func PlaintextError(err error) error { return mapDriverError(err) }
