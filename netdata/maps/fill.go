package maps

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
)

// Fill is how full a table is.
type Fill struct {
	// Table is the name of the map.
	Table string `json:"table"`
	// Entries is -1 where the kernel cannot count: arrays are always full, and what is kept with
	// sockets has no end of its own.
	Entries int `json:"entries"`
	// Max is the capacity in rows, 0 where there is none.
	Max int `json:"max"`
	// Bytes is what the kernel has allocated for the map, as it says.
	Bytes uint64 `json:"bytes"`
}

// Fills reads how full the tables are, by walking over them: ask seldom.
func (t *Tables) Fills() ([]Fill, error) {
	all := maps.Clone(t.shared)
	for f, tables := range t.families {
		if tables == nil {
			continue
		}
		for name, m := range tables.byID {
			if !layouts[name].shared {
				all[tableName(name, Family(f))] = m
			}
		}
	}
	var out []Fill
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f, err := fillOf(name, all[name])
		errs = append(errs, err)
		out = append(out, f)
	}
	return out, errors.Join(errs...)
}

// tableName tells the families' tables apart the way their pins do.
func tableName(name string, f Family) string {
	if f == IPv6 {
		return name + "6"
	}
	return name
}

func fillOf(name string, m *ebpf.Map) (Fill, error) {
	f := Fill{Table: name, Entries: -1, Max: int(m.MaxEntries())}
	if info, err := m.Info(); err == nil {
		f.Bytes, _ = info.Memlock()
	}
	var entries int
	var err error
	switch m.Type() {
	case ebpf.Hash, ebpf.LRUHash:
		entries, err = countRows(m)
	case ebpf.LPMTrie:
		entries, err = countKeys(m)
	default:
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("count the rows of %s: %w", name, err)
	}
	f.Entries = entries
	return f, nil
}

// countRows uses batches: a table of 64 Ki rows takes some milliseconds.
func countRows(m *ebpf.Map) (int, error) {
	keys, values := rows(m.KeySize()), rows(m.ValueSize())
	var cursor ebpf.MapBatchCursor
	total := 0
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		total += n
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// rows is a slice of batchSize arrays of size bytes.
func rows(size uint32) any {
	row := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(row), batchSize, batchSize).Interface()
}

func countKeys(m *ebpf.Map) (int, error) {
	key, err := m.NextKeyBytes(nil)
	for total := 0; ; total++ {
		if err != nil || key == nil {
			return total, err
		}
		key, err = m.NextKeyBytes(key)
	}
}
