package oci

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/Masterminds/semver/v3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// latest is the tag of an object that names nothing.
const latest = "latest"

// target is what an object means at the moment.
type target struct {
	tag    string // "" for a digest
	digest string
}

// revision is how Flux writes it.
func (t target) revision() string {
	if t.tag == "" {
		return t.digest
	}
	return t.tag + "@" + t.digest
}

// resolve finds out what the object means: a digest goes before a range, and a
// range before a tag.
func (a *attempt) resolve(ctx context.Context, registry *access) (target, error) {
	ref := a.obj.Spec.Reference
	if ref != nil && ref.Digest != "" {
		if _, err := v1.NewHash(ref.Digest); err != nil {
			return target{}, fmt.Errorf("spec.ref.digest: %w", err)
		}
		return target{digest: ref.Digest}, nil
	}
	tag := latest
	switch {
	case ref != nil && ref.SemVer != "":
		tags, err := remote.List(registry.repository, registry.with(ctx)...)
		if err != nil {
			return target{}, fmt.Errorf("list tags of %s: %w", registry.repository, err)
		}
		if tag, err = newest(tags, ref.SemVer, ref.SemverFilter); err != nil {
			return target{}, err
		}
	case ref != nil && ref.Tag != "":
		tag = ref.Tag
	}
	descriptor, err := remote.Head(registry.repository.Tag(tag), registry.with(ctx)...)
	if err != nil {
		// Some registries do not know HEAD; the reasons of others are only in the
		// answer to GET.
		full, getErr := remote.Get(registry.repository.Tag(tag), registry.with(ctx)...)
		if getErr != nil {
			return target{}, fmt.Errorf("find %s:%s: %w", registry.repository, tag, getErr)
		}
		descriptor = &full.Descriptor
	}
	return target{tag: tag, digest: descriptor.Digest.String()}, nil
}

// newest returns the tag with the highest version in a range.
func newest(tags []string, wanted, filter string) (string, error) {
	constraint, err := semver.NewConstraint(wanted)
	if err != nil {
		return "", fmt.Errorf("spec.ref.semver %q: %w", wanted, err)
	}
	pattern, err := regexp.Compile(filter)
	if err != nil {
		return "", fmt.Errorf("spec.ref.semverFilter: %w", err)
	}
	var best *semver.Version
	for _, tag := range tags {
		if !pattern.MatchString(tag) {
			continue
		}
		version, err := semver.NewVersion(tag)
		if err != nil || !constraint.Check(version) {
			continue
		}
		if best == nil || version.GreaterThan(best) {
			best = version
		}
	}
	if best == nil {
		return "", errors.New("no tag is a version in the range " + wanted)
	}
	return best.Original(), nil
}
