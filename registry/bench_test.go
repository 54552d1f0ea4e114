package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee-vault/vault"
)

func benchRegistry(b *testing.B, nodes int) *Registry {
	r := newRegistry(b)
	update(b, r, func(ctx context.Context, tx *vault.Tx) error {
		for i := range nodes {
			n := testNode()
			n.Name = fmt.Sprintf("hive-%05d", i)
			if err := InsertNodes(ctx, tx, n); err != nil {
				return err
			}
		}
		return nil
	})
	return r
}

func BenchmarkGetNode(b *testing.B) {
	r := benchRegistry(b, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.GetNode(b.Context(), fmt.Sprintf("hive-%05d", i%1000)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListNodes(b *testing.B) {
	r := benchRegistry(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if list, err := r.ListNodes(b.Context()); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}

func BenchmarkUpdateStatusUnchanged(b *testing.B) {
	r := benchRegistry(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.UpdateStatus(b.Context(), "hive-00042", StatusOnline); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeRow measures a row without SQLite.
func BenchmarkDecodeRow(b *testing.B) {
	row := rowOf(testNode())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := row.node(nodeDetails{}); err != nil {
			b.Fatal(err)
		}
	}
}
