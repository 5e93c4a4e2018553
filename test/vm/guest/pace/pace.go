// Package pace measures how fast a machine is at what bothy does most: making
// and reading structured text. The ratio of two machines is a measure for how long
// one has to wait for the other.
package pace

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	rounds = 10
	// attempts is how often the work is done. The fastest counts: the others were
	// disturbed.
	attempts = 12
)

// Measure does a fixed piece of work and returns how long it took.
func Measure() time.Duration {
	fastest := time.Duration(0)
	for range attempts {
		start := time.Now()
		for range rounds {
			work()
		}
		if took := time.Since(start); fastest == 0 || took < fastest {
			fastest = took
		}
	}
	return fastest
}

type object struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Values []int             `json:"values"`
}

func work() {
	in := make([]object, 20)
	for i := range in {
		in[i] = object{Name: fmt.Sprintf("object-%d", i), Labels: map[string]string{}, Values: make([]int, 20)}
		for j := range in[i].Values {
			in[i].Labels[fmt.Sprintf("label-%d", j)] = "value"
			in[i].Values[j] = (i*7919 + j*104729) % 1000
		}
	}
	data, err := json.Marshal(in)
	var out []object
	if err != nil || json.Unmarshal(data, &out) != nil {
		panic("an object does not survive JSON") // it always has
	}
	for i := range out {
		slices.Sort(out[i].Values)
	}
}
