package wire

import "encoding/hex"

// ParseHex decodes lower-case hex that must fill dst exactly. If it returns false, dst is of no
// use.
func ParseHex(dst []byte, s string) bool {
	const digits = "0123456789abcdef"
	if len(s) != hex.EncodedLen(len(dst)) {
		return false
	}
	var wrong byte
	for i := range dst {
		for _, c := range [2]byte{s[2*i], s[2*i+1]} {
			value := (c&0xf + c>>6*9) & 0xf // without a branch that the processor cannot predict
			wrong |= digits[value] ^ c
			dst[i] = dst[i]<<4 | value
		}
	}
	return wrong == 0
}
