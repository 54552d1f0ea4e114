package backup

import (
	"hash/maphash"
	"slices"
)

// hashSet remembers texts by their hashes: 8 bytes each, so that what refers to a million nodes
// can be checked in little memory. The hashes are under a random key, so nobody can make two
// texts that meet.
type hashSet struct {
	seed   maphash.Seed
	hashes []uint64
	sorted bool
}

// maxExpected bounds the memory for texts that are only announced.
const maxExpected = 1 << 20

// newHashSet returns a set for so many texts, or more.
func newHashSet(expected int64) *hashSet {
	return &hashSet{seed: maphash.MakeSeed(), hashes: make([]uint64, 0, min(expected, maxExpected))}
}

// hash returns the hash of texts that contain no zero byte.
func (s *hashSet) hash(texts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, text := range texts {
		h.WriteString(text)
		h.WriteByte(0)
	}
	return h.Sum64()
}

func (s *hashSet) add(texts ...string) {
	s.hashes = append(s.hashes, s.hash(texts...))
	s.sorted = false
}

// find returns the index of the texts in the set.
func (s *hashSet) find(texts ...string) (int, bool) { return s.findHash(s.hash(texts...)) }

func (s *hashSet) findHash(hash uint64) (int, bool) {
	if !s.sorted {
		slices.Sort(s.hashes)
		s.sorted = true
	}
	return slices.BinarySearch(s.hashes, hash)
}

func (s *hashSet) has(texts ...string) bool {
	_, ok := s.find(texts...)
	return ok
}

func (s *hashSet) hasHash(hash uint64) bool {
	_, ok := s.findHash(hash)
	return ok
}
