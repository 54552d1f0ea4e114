package backup

// Wrap wraps the store of each place.
func (o *PruneOptions) Wrap(store func(Store) Store) { o.store = store }
