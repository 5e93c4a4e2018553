package agent

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// shareMetrics lets components that were written for a process of their own
// live in one: etcd and containerd both register the metrics of the gRPC
// library, and the second one would panic. The first registration counts.
func shareMetrics() {
	prometheus.DefaultRegisterer = shared{prometheus.DefaultRegisterer}
}

type shared struct{ prometheus.Registerer }

// MustRegister panics on errors other than a repetition.
func (s shared) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		err := s.Registerer.Register(c)
		if err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) && !isDuplicate(err) {
			panic(err)
		}
	}
}

// isDuplicate recognises two collectors that overlap without being equal, for
// which the library has no error type.
func isDuplicate(err error) bool {
	return err.Error() == "duplicate metrics collector registration attempted"
}
