package backup

import "iter"

const (
	batchSize  = 256
	maxBatches = 4
)

// ahead yields the same values. They are made in a goroutine of its own, some batches ahead of
// their use. Until it returns, the caller must not use what the values are made from.
func ahead[T any](values iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		batches := make(chan []T, maxBatches)
		stop := make(chan struct{})
		var failed error // set before batches is closed
		go func() {
			defer close(batches)
			failed = sendBatches(values, batches, stop)
		}()
		defer func() {
			close(stop)
			for range batches { // until the goroutine has ended
			}
		}()
		for batch := range batches {
			for _, v := range batch {
				if !yield(v, nil) {
					return
				}
			}
		}
		if failed != nil {
			var none T
			yield(none, failed)
		}
	}
}

// sendBatches sends the values until one is an error, or stop is closed.
func sendBatches[T any](values iter.Seq2[T, error], batches chan<- []T, stop <-chan struct{}) error {
	batch := make([]T, 0, batchSize)
	send := func() bool {
		select {
		case batches <- batch:
			batch = make([]T, 0, batchSize)
			return true
		case <-stop:
			return false
		}
	}
	for v, err := range values {
		if err != nil {
			send()
			return err
		}
		if batch = append(batch, v); len(batch) == batchSize && !send() {
			return nil
		}
	}
	send()
	return nil
}
