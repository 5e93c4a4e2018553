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
	var out []Fill
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(t.byID)) {
		m := t.byID[name]
		f := Fill{Table: name, Entries: -1, Max: int(m.MaxEntries())}
		if info, err := m.Info(); err == nil {
			f.Bytes, _ = info.Memlock()
		}
		var err error
		switch m.Type() {
		case ebpf.Hash, ebpf.LRUHash:
			f.Entries, err = countRows(m)
		case ebpf.LPMTrie:
			f.Entries, err = countKeys(m)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("count the rows of %s: %w", name, err))
			f.Entries = -1
		}
		out = append(out, f)
	}
	return out, errors.Join(errs...)
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
