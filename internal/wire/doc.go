// Package wire writes values as text and reads them back: the one JSON line, times, hex, text
// that is safe on a terminal, shell quoting. It does not know what the values mean.
//
// Start with [Marshal] and [Unmarshal]; for JSON that people write there is [UnmarshalObject].
package wire
