// Package sources has the controllers of HelmRepository and HelmChart.
//
// A HelmRepository's index and the archives of charts are kept as files below
// sources/helm of the state directory, so that neither is in memory and a site
// whose uplink is gone restarts with what it has; what is read from there is
// compared with its digest each time. Artifacts go to the source.Store: of a
// HelmRepository, a file system with index.yaml; of a HelmChart, one with the
// archive of the chart.
//
// It promises: a repository is asked for its index once per interval and answers
// "unchanged" if it can; a chart is fetched once per version; a chart of Git is
// only built when its own files changed; what cannot be verified although it was
// asked for is refused; nothing is written when nothing changed.
//
// Map: setup.go, repository.go (HelmRepository), chart.go (HelmChart),
// build_*.go (where its content comes from), access.go (credentials), verify.go,
// files.go (the files on disk).
package sources
