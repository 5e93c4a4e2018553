package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bothy-os/bothy/internal/durable"
)

// state is how a spec ended.
type state string

const (
	passed  state = "passed"
	failed  state = "failed"
	skipped state = "skipped"
)

// result is what came out of one spec.
type result struct {
	State   state     `json:"state"`
	Seconds float64   `json:"seconds"`
	At      time.Time `json:"at"`
	// Bothy is the version that was tested.
	Bothy string `json:"bothy"`
	// Nodes is how many the cluster had.
	Nodes int `json:"nodes"`
	// Message and Where are the suite's words on a failure or a skip, and the
	// line of the suite they come from.
	Message string `json:"message,omitempty"`
	Where   string `json:"where,omitempty"`
}

// results is the file that keeps them, by the text of the spec.
type results struct {
	Specs map[string]result `json:"specs"`

	file string
}

func openResults(file string) (*results, error) {
	r := &results{Specs: map[string]result{}, file: file}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decode the results %s: %w; remove the file to start over", file, err)
	}
	return r, nil
}

func (r *results) save() error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(r.file, append(data, '\n'), 0o644)
}
