// Package helm serves the Helm part of the Flux API: HelmRepository, HelmChart
// and HelmRelease.
//
// It promises: what Flux's fields and conditions mean, they mean here; releases
// are stored as Helm itself stores them, so that the helm command sees them; a
// release whose chart and values did not change costs no Helm action and no
// write; a release that waits never holds up another; an agent killed in the
// middle of an action finds the release pending, unlocks it and goes on; a chart
// whose content is not what its repository or registry promised is refused.
//
// The package must not know Git, nor how a cluster is run: charts of Git come as
// artifacts of the source.Store.
//
// Map: [Setup] registers all controllers. Below: remote (chart repositories and
// registries), charts (the files of a chart), sources (the controllers of
// HelmRepository and HelmChart), release (the controller of HelmRelease).
package helm
