package registry_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee-vault/registry"
)

func TestSelector(t *testing.T) {
	now := time.Unix(1_767_323_045, 0)
	node := func(name string, status registry.Status, seen time.Duration, devices map[string]uint32, backends ...string) registry.Node {
		n := keyNode(name)
		n.Status, n.Devices, n.Backends = status, devices, backends
		if seen > 0 {
			n.LastConnected = now.Add(-seen)
		}
		return n
	}
	nodes := []registry.Node{
		node("hive-01", registry.StatusOnline, time.Minute, map[string]uint32{"cuda": 2}, "cuda", "cpu"),
		node("hive-02", registry.StatusOffline, time.Hour, map[string]uint32{"cuda": 4}, "cuda"),
		node("mac-01", registry.StatusOnline, 30*time.Second, nil, "metal"),
		node("new-01", registry.StatusUnknown, 0, nil),
	}
	nodes[0].Labels = map[string]string{"rack": "3", "zone": "eu-1"}
	nodes[1].Labels = map[string]string{"rack": "4", "zone": "us-1"}
	nodes[2].Labels = map[string]string{"rack": "", "a.b_c-d": "x"}
	for _, test := range []struct {
		patterns []string
		where    string
		want     string
	}{
		{nil, "", "[hive-01 hive-02 mac-01 new-01]"},
		{[]string{"hive-*"}, "", "[hive-01 hive-02]"},
		{[]string{"*-01", "hive-02"}, "", "[hive-01 hive-02 mac-01 new-01]"},
		{nil, "status=online", "[hive-01 mac-01]"},
		{nil, "status!=online", "[hive-02 new-01]"},
		{nil, "backend=cuda", "[hive-01 hive-02]"},
		{nil, "backend!=cuda", "[mac-01]"},
		{nil, "cuda>=2", "[hive-01 hive-02]"},
		{nil, "cuda>2", "[hive-02]"},
		{nil, "cuda=0", "[mac-01]"},
		{nil, "cuda<=2, cuda != 0", "[hive-01]"},
		{nil, "seen<10m", "[hive-01 mac-01]"},
		{nil, "seen>10m", "[hive-02 new-01]"},
		{nil, "seen<1d,status=offline", "[hive-02]"},
		{[]string{"hive-*"}, "backend=metal", "[]"},
		{nil, "label.rack=3", "[hive-01]"},
		{nil, "label.rack != 3", "[hive-02 mac-01 new-01]"},
		{nil, "label.rack=*", "[hive-01 hive-02 mac-01]"},
		{nil, "label.rack!=*", "[new-01]"},
		{nil, "label.rack=", "[mac-01]"},
		{nil, "label.rack=[3-4]", "[hive-01 hive-02]"},
		{nil, "label.zone=eu-*", "[hive-01]"},
		{nil, "label.a.b_c-d=x", "[mac-01]"},
		{nil, "label.Rack=*", "[]"},
		{nil, "label.rack=*,status=online,cuda>=2", "[hive-01]"},
	} {
		s, err := registry.ParseSelector(test.patterns, test.where)
		if err != nil {
			t.Errorf("%q %q: %v", test.patterns, test.where, err)
			continue
		}
		picked, err := s.Select(nodes, now)
		names := []string{}
		for _, n := range picked {
			names = append(names, n.Name)
		}
		if err != nil || fmt.Sprint(names) != test.want {
			t.Errorf("%q %q: %v, %v, want %s", test.patterns, test.where, names, err, test.want)
		}
	}
	for _, where := range []string{"online", "status", "status=reachable", "status<online", "backend>cuda", "backend=", "seen=10m", "seen<soon", "seen<-1m", "cuda>=two", "cuda>=-1", "=1", ",", "status=online,", "Cuda=1",
		"label.rack", "label.=3", "label=3", "label.rack>3", "label.rack=3 4", "label.rack==3", "label.-a=3", "label.a/b=3", "label.rack=[3"} {
		if _, err := registry.ParseSelector(nil, where); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", where, err)
		}
	}
	for _, pattern := range []string{"", "hive-["} {
		if _, err := registry.ParseSelector([]string{pattern}, ""); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", pattern, err)
		}
	}
	s, err := registry.ParseSelector([]string{"hive-01", "hive-9*"}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Select(nodes, now); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("hive-*", "status=online,backend!=cuda,cuda>=2,seen<10m")
	f.Add("[a-", "seen>7d")
	f.Add("*", "label.rack=3,label.zone!=eu-*,label.a.b=")
	f.Fuzz(func(t *testing.T, pattern, where string) {
		s, err := registry.ParseSelector([]string{pattern}, where)
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%v", err)
			}
			return
		}
		n := keyNode("hive-01")
		n.Labels = map[string]string{"rack": "3"}
		if _, err := s.Select([]registry.Node{n}, time.Now()); err != nil && !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%v", err)
		}
	})
}
