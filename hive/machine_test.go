package hive

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseMachine(t *testing.T) {
	m, err := parseMachine(`Last login: today
rbee-discover 1
os Linux 6.1.0 x86_64
cpus 64
cpu AMD EPYC
memory 5.40e+11
disk 1000
later something
cuda NVIDIA A100, 81920, 550.1
cuda NVIDIA A100, 81920, 550.1` + "\x1b[31m" + `
end
`)
	if err != nil || m.CPUs != 64 || m.Memory != 540e9 || m.Disk != 1000 || len(m.Devices["cuda"]) != 2 || strings.Contains(m.Devices["cuda"][1], "\x1b") {
		t.Errorf("%+v, %v", m, err)
	}
	backends, devices := m.Backends()
	if !reflect.DeepEqual(backends, []string{"cpu", "cuda"}) || !reflect.DeepEqual(devices, map[string]uint32{"cpu": 1, "cuda": 2}) {
		t.Errorf("%v, %v", backends, devices)
	}
	for _, bad := range []string{"", "end", "rbee-discover 2\nend\n", "rbee-discover 1\ncpus 1\n"} {
		if _, err := parseMachine(bad); !errors.Is(err, ErrDiscovery) {
			t.Errorf("%q: %v, want ErrDiscovery", bad, err)
		}
	}
}

func FuzzParseMachine(f *testing.F) {
	f.Add("rbee-discover 1\ncpus 1\ncuda x\nend\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMachine(text)
		if err != nil {
			return
		}
		for _, found := range m.Devices {
			if len(found) > maxDevices {
				t.Errorf("%d devices", len(found))
			}
		}
	})
}
