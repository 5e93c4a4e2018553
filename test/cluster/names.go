package cluster

import (
	"fmt"
	"math/rand/v2"
)

// randomName is short enough for a link name and unlikely to meet another.
func randomName() string { return fmt.Sprintf("%06x", rand.Uint32N(1<<24)) }
