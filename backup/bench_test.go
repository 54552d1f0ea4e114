package backup_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/rbee-keeper/rbee-vault/backup"
)

func BenchmarkCreate(b *testing.B) {
	for _, nodes := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("%d nodes", nodes), func(b *testing.B) {
			_, v := bigFleet(b, nodes)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := backup.Create(b.Context(), v, backup.CreateOptions{Writer: io.Discard}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, nodes := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("%d nodes", nodes), func(b *testing.B) {
			cfg, v := bigFleet(b, nodes)
			file, c := create(b, v)
			target := elsewhere(b, cfg)
			b.ReportAllocs()
			for b.Loop() {
				_, err := backup.Restore(b.Context(), target, bytes.NewReader(file), backup.RestoreOptions{ReadOptions: trusting(cfg, c)})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				for _, suffix := range []string{"", ".slots"} {
					if err := os.Remove(target.Path + suffix); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkProve shows what a drill costs beside the restore that it tries out.
func BenchmarkProve(b *testing.B) {
	for _, nodes := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("%d nodes", nodes), func(b *testing.B) {
			cfg, v := bigFleet(b, nodes)
			file, _ := create(b, v)
			for b.Loop() {
				if _, err := backup.Prove(b.Context(), v, bytes.NewReader(file), drillOptions(cfg)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
