// Pins what the tests and benchmarks run of Flux. build.sh builds each from a
// copy of its module, so that its own go.mod decides on its dependencies.
module github.com/bothy-os/bothy/tools/flux

go 1.26.6

require (
	github.com/fluxcd/flux2/v2 v2.9.5
	github.com/fluxcd/kustomize-controller v1.9.5
	github.com/fluxcd/kustomize-controller/api v1.9.5
	github.com/fluxcd/source-controller v1.9.3
	github.com/fluxcd/source-controller/api v1.9.3
)
