package netdata

import (
	"os"
	"strconv"
	"time"
)

// patiently is d, or as much longer as the machine is slow: BOTHY_TEST_SLOWNESS is
// set where tests run in an emulated one.
func patiently(d time.Duration) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv("BOTHY_TEST_SLOWNESS"), 64)
	if err != nil || factor < 1 {
		return d
	}
	return time.Duration(float64(d) * factor)
}
