package v1alpha1

import (
	"encoding/json"
	"fmt"
	"time"
)

// UnmarshalJSON reads "90s"; a bare number has no unit and is refused.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("must be a duration in quotes such as \"30s\" or \"24h\"")
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("must be a duration such as \"30s\" or \"24h\", not %q", s)
	}
	d.Duration = v
	return nil
}

// MarshalJSON writes "90s".
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }
