package cni

import (
	"errors"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
)

// gc removes every attachment that the runtime does not know any more.
func (s *Server) gc(req request) *types.Error {
	all, err := s.records.all()
	errs := []error{err}
	for _, rec := range all {
		if !slices.Contains(req.valid, rec.Attachment) {
			errs = append(errs, s.forget(rec.Attachment))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return internal("remove leftovers", err)
	}
	return nil
}
