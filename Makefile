# make help lists the targets.
#
# Everything that is built lands in build/, and the cluster of `make up` in
# .bothy/; nothing else in the tree is written.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

K8S_VERSION := v1.37.1
K8S_DATE    := 2026-09-23T17:06:22Z

# One set of flags for building, testing and linting: the three share one build
# cache, and Kubernetes is compiled once and not three times.
export GOFLAGS := -trimpath -buildvcs=false
# Without the C library the programs run on any Linux, the operating system image
# included, which has none, and do not differ with the compiler of the machine.
export CGO_ENABLED := 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILT   := $(shell git log -1 --format=%cI 2>/dev/null)
COMMIT  := $(shell git rev-parse -q --verify HEAD 2>/dev/null || echo unknown)

# $(1) is a package with the version variables of Kubernetes.
k8s_version = -X $(1).gitVersion=$(K8S_VERSION) -X $(1).gitMajor=1 -X $(1).gitMinor=37 \
	-X $(1).gitTreeState=clean -X $(1).gitCommit= -X $(1).buildDate=$(K8S_DATE)
K8S_LDFLAGS := $(call k8s_version,k8s.io/component-base/version) $(call k8s_version,k8s.io/client-go/pkg/version)
LDFLAGS     := -s -w $(K8S_LDFLAGS) \
	-X github.com/bothy-os/bothy/internal/version.Version=$(VERSION) \
	-X github.com/bothy-os/bothy/internal/version.Commit=$(COMMIT) \
	-X github.com/bothy-os/bothy/internal/version.built=$(BUILT)

BIN      := build/bin
BINARIES := $(addprefix $(BIN)/,bothy bothy-cni bothy-init runc containerd-shim-runc-v2)
STEP     := hack/step.sh

# What the product's binaries are made of: everything in its packages but tests.
SOURCES := go.mod go.sum $(shell find agent api bootstrap cmd images internal netdata node os reconciler \
	-type f ! -name '*_test.go' ! -path '*/testdata/*' ! -name '*.md' 2>/dev/null)

##@ Running a cluster

# The settings of `make up`; see `build/bin/bothy up --help` for more.
STATE    ?= .bothy/state
SIGNER   ?= $(shell git config user.email 2>/dev/null || id -un)
SSH_KEY  ?=
GPG_KEY  ?=
NODES    ?=
UP_FLAGS ?=

.PHONY: up
up: build images .bothy/template-commit ## Start a cluster from examples/repo, signed with a key of your own.
	$(BIN)/bothy up --state $(STATE) --repo "file://$(CURDIR)/.bothy/repo.git" --path clusters/default \
		--trust-root .bothy/repo/trust/root.yaml --images build/images \
		$(if $(NODES),--nodes $(NODES) --enrol-in .bothy/repo) $(UP_FLAGS)

.PHONY: down
down: ## Stop the cluster and leave nothing behind.
	hack/down.sh $(STATE)

# The repository is made once. SSH_KEY=~/.ssh/id_ed25519 or GPG_KEY=<id> signs
# with a key you have; otherwise one is made for this cluster alone.
.bothy/template-commit: | build
	mkdir -p -m 700 .bothy
	$(BIN)/bothy repo init --template examples/repo --dir .bothy/repo --bare .bothy/repo.git --signer "$(SIGNER)" \
		$(if $(GPG_KEY),--gpg-key "$(GPG_KEY)",$(if $(SSH_KEY),--ssh-key "$(SSH_KEY)",--generate-key .bothy/keys/signer))
	git -C .bothy/repo rev-parse HEAD >$@

##@ Building

.PHONY: build
build: $(BINARIES) ## Build the binaries into build/bin.

$(BINARIES): | deps

.PHONY: deps
deps: ## Install what building needs (says what, and does nothing when it is there).
	@hack/deps.sh build

# Changes only when the version does, so that a new commit relinks and nothing
# else does.
build/version: FORCE
	@mkdir -p build && echo "$(VERSION) $(COMMIT)" | cmp -s - $@ || echo "$(VERSION) $(COMMIT)" >$@

$(BIN)/bothy: $(SOURCES) build/version
	@$(STEP) "Building bothy (with Kubernetes $(K8S_VERSION) inside; the first time takes minutes)" \
		go build -v -ldflags '$(LDFLAGS)' -o $@ ./cmd/bothy
	@touch $@

$(BIN)/bothy-cni $(BIN)/bothy-init: $(BIN)/%: $(SOURCES) build/version
	@$(STEP) "Building $*" go build -v -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*
	@touch $@

# The container runtime comes from its own module: its dependencies need not
# agree with those of Kubernetes.
RUNTIME_MODULE := tools/runtime/go.mod tools/runtime/go.sum

$(BIN)/runc: $(RUNTIME_MODULE)
	@$(STEP) "Building runc" env CGO_ENABLED=1 go -C tools/runtime build -v -buildmode=pie \
		-tags 'seccomp urfave_cli_no_docs netgo osusergo' \
		-ldflags '-s -w -linkmode external -extldflags -static-pie' \
		-o $(CURDIR)/$@ github.com/opencontainers/runc
	@touch $@

$(BIN)/containerd-shim-runc-v2: $(RUNTIME_MODULE)
	@$(STEP) "Building containerd-shim-runc-v2" go -C tools/runtime build -v \
		-tags 'no_grpc urfave_cli_no_docs' -ldflags '-s -w' \
		-o $(CURDIR)/$@ github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	@touch $@

.PHONY: images
images: build/images/index.json ## Build the container images into build/images (an OCI layout).

build/images/index.json: $(shell find images/pause examples/hello -type f 2>/dev/null) | build
	@rm -rf build/images
	@$(STEP) "Building the images" $(BIN)/bothy image build --layout build/images \
		--c images/pause/pause.c=bothy.local/pause:1 --go ./examples/hello=bothy.local/hello:1

# The pause image is all that a machine needs to run pods of others.
build/os/pause/index.json: images/pause/pause.c | build
	@rm -rf build/os/pause
	@$(STEP) "Building the pause image" $(BIN)/bothy image build --layout build/os/pause --c images/pause/pause.c=bothy.local/pause:1

FLAVOUR     ?= vm
IMAGE_FLAGS ?=

.PHONY: image
image: build build/os/pause/index.json ## Build the operating system into build/os: disk, boot file, OCI artifact; FLAVOUR=vm or hardware.
	@hack/deps.sh image
	$(BIN)/bothy os build --out build/os --flavour $(FLAVOUR) --images build/os/pause $(IMAGE_FLAGS)

.PHONY: image-reproducible
image-reproducible: image ## Build the operating system once more, in another directory, and compare every byte.
	hack/image-reproducible.sh build/os bothy-$(FLAVOUR) $(BIN)/bothy os build --flavour $(FLAVOUR) --images build/os/pause --cache build/os/debian $(IMAGE_FLAGS)

.PHONY: image-lock
image-lock: ## Move os/image/lock.yaml to the newest packages of Debian.
	@hack/deps.sh image
	go run ./os/image/updatelock build/os/debian os/image/lock.yaml

# What the tests run in pods; never part of a cluster that is not under test.
build/test-images/index.json: $(shell find test/images -type f 2>/dev/null) | build
	@rm -rf build/test-images
	@$(STEP) "Building the images of the tests" $(BIN)/bothy image build --layout build/test-images \
		--go ./test/images/toolbox=bothy.local/toolbox:1

##@ Testing

.PHONY: test
test: lint test-unit test-integration conformance-smoke ## Lint, unit tests, and the integration and upstream suites on real nodes.

.PHONY: test-unit
test-unit: deps build/tools/cosign ## Unit tests; with the race detector where that does not mean compiling Kubernetes again.
	hack/packages.sh light | CGO_ENABLED=1 xargs -r go test -race -timeout 10m
	hack/packages.sh heavy | xargs -r go test -timeout 10m

.PHONY: test-integration
test-integration: build images build/test-images/index.json $(BIN)/kubectl $(BIN)/flux ## Real nodes from signed repositories on this machine; needs root.
	@hack/deps.sh build test
	@[ "$$(id -u)" != 0 ] || hack/clean-runs.sh
	go test -count=1 -v -p 1 -parallel 4 -timeout 45m ./test/cluster/... $(TEST_FLAGS)

# Virtual machines take the whole host, so packages run one after the other.
VM_TEST := BOTHY_VM=require go test -count=1 -v -p 1

.PHONY: test-vm
test-vm: image images build/test-images/index.json $(BIN)/kubectl ## Kernels 6.1 and 6.12 under QEMU: dataplane, cgroup v2, quotas, the product; then the appliance; 40 minutes without KVM.
	@hack/deps.sh build vm appliance && rm -rf build/vm/run
	$(VM_TEST) -timeout 60m ./test/vm/... $(TEST_FLAGS)

.PHONY: test-vm-appliance
test-vm-appliance: image images $(BIN)/kubectl build/test-images/index.json ## The operating system in a virtual machine: from power-on to a serving workload, an update from Git, Secure Boot, a damaged disk; BOTHY_VM_ALL=1 for faults.
	@hack/deps.sh vm appliance
	$(VM_TEST) -timeout 2h ./test/vm/appliance $(TEST_FLAGS)

.PHONY: test-vm-all
test-vm-all: image images build/test-images/index.json $(BIN)/kubectl ## The same on every kernel in test/vm/debian/packages.yaml, updates that fail, and 30 power cuts; hours without KVM.
	@hack/deps.sh build vm appliance && rm -rf build/vm/run
	BOTHY_VM_KERNELS="6.1 6.12 6.18 7.3" BOTHY_VM_ALL=1 BOTHY_POWER_CUTS=30 $(VM_TEST) -timeout 8h ./test/vm/... $(TEST_FLAGS)

# What `make conformance` runs and prints; docs/conformance.md explains them.
SET      ?= conformance
FOCUS    ?=
SKIP     ?=
SHARD    ?= 1/1
PARALLEL ?= 4
FOR      ?= 0
CONFORMANCE := go run ./test/conformance
CONFORMANCE_FLAGS = -set '$(SET)' -focus '$(FOCUS)' -skip '$(SKIP)' -shard $(SHARD) -parallel $(PARALLEL) -for $(FOR) \
	$(if $(LIST),-list) $(if $(AGAIN),-again) $(if $(RETRY),-retry) $(if $(KEEP),-keep) $(if $(NODES),-nodes $(NODES))

.PHONY: conformance
conformance: e2e ## The upstream conformance suite, resumed where it stopped; SET, FOCUS, SKIP, SHARD, PARALLEL, FOR, NODES, LIST=1.
	$(CONFORMANCE) $(CONFORMANCE_FLAGS) $(if $(LIST),,-docs)

.PHONY: conformance-report
conformance-report: ## docs/conformance.md from the results there are.
	$(CONFORMANCE) report

.PHONY: conformance-smoke
conformance-smoke: e2e ## A few minutes of every part of the upstream suite.
	@[ "$$(id -u)" = 0 ] || { echo "not root: the upstream suite needs a node, and is left out"; exit 0; }; \
		$(CONFORMANCE) -set smoke -nodes 1 -again -results build/e2e/smoke.json -parallel $(PARALLEL)

.PHONY: bench
bench: build images build/test-images/index.json $(BIN)/kubectl peers ## Start-up times, memory, CPU and writes, beside separate upstream processes.
	@hack/clean-runs.sh
	go run ./test/bench $(BENCH_FLAGS)

.PHONY: bench-gitops
bench-gitops: build $(BIN)/kubectl build/images/index.json build/test-images/index.json $(FLUX_PEERS) ## From a push to the cluster, beside Flux's own controllers, in turns.
	@hack/clean-runs.sh
	go run ./test/bench/gitops $(BENCH_FLAGS)

NET_PEERS := build/peers/kube-proxy build/peers/netload

.PHONY: bench-net
bench-net: build $(BIN)/kubectl build/images/index.json build/test-images/index.json $(NET_PEERS) ## What a packet's way costs, beside kube-proxy in both of its modes, in turns.
	@hack/deps.sh bench-net
	@hack/clean-runs.sh
	go run ./test/bench/net $(BENCH_FLAGS)

.PHONY: bench-programs
bench-programs: deps ## What each eBPF program costs, in ns per packet, and what it takes to fill the tables.
	go test -run '^$$' -bench . -count 5 ./netdata/loader ./netdata/services

.PHONY: test-churn
test-churn: build images build/test-images/index.json $(BIN)/kubectl ## 50 Services and 500 endpoints flap for ten minutes under load.
	@hack/clean-runs.sh
	CHURN=10m go test -count=1 -v -timeout 25m -run Churn ./test/cluster/network

.PHONY: test-chaos
test-chaos: build images build/test-images/index.json $(BIN)/kubectl ## kill -9 of the agent during 200 reconciles.
	@hack/clean-runs.sh
	CHAOS_RECONCILES=200 go test -count=1 -v -parallel 4 -timeout 20m -run Killed ./test/cluster/chaos

.PHONY: bench-images
bench-images: ## What the image policy costs at admission, pull and per container, first judgement and later ones; import beside `ctr images import`.
	go test -run '^$$' -bench . ./images/verify ./images/gate ./images/enforce
	go test -run '^$$' -bench Import -benchtime 5x ./images

FUZZTIME ?= 30s

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	hack/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: build/tools/golangci-lint ## Static checks, among them the one that holds the floors of docs/architecture.md.
	@hack/check-floors.sh build/tools/golangci-lint
	build/tools/golangci-lint run --allow-parallel-runners ./...

build/tools/golangci-lint: tools/lint/go.mod tools/lint/go.sum | deps
	@$(STEP) "Building golangci-lint" go -C tools/lint build -v -ldflags '-s -w' -o $(CURDIR)/$@ \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

##@ Generated files and tools

.PHONY: generate
generate: ## Regenerate the committed generated files (needs clang for the eBPF programs).
	@hack/deps.sh build generate
	go generate ./...

.PHONY: check-generated
check-generated: generate ## Fail when generated files differ from what generate makes.
	git diff --exit-code || { echo "run 'make generate' and commit the result" >&2; exit 1; }

UPSTREAM_MODULE := tools/upstream/go.mod tools/upstream/go.sum
PEERS := $(addprefix build/peers/,kube-apiserver kube-controller-manager kube-scheduler kubelet etcd containerd \
	ptp host-local loopback)

.PHONY: kubectl
kubectl: $(BIN)/kubectl ## Build kubectl of the version that runs inside.

$(BIN)/kubectl: $(UPSTREAM_MODULE) | deps
	@$(STEP) "Building kubectl" go -C tools/upstream build -v -ldflags '-s -w $(K8S_LDFLAGS)' \
		-o $(CURDIR)/$@ k8s.io/kubernetes/cmd/kubectl
	@touch $@

# The program that signs in the tests of the image policy.
build/tools/cosign: tools/cosign/go.mod tools/cosign/go.sum | deps
	@$(STEP) "Building cosign" go -C tools/cosign build -v -ldflags '-s -w' -o $(CURDIR)/$@ \
		github.com/sigstore/cosign/v3/cmd/cosign
	@touch $@

FLUX_MODULE := tools/flux/go.mod tools/flux/go.sum tools/flux/build.sh
FLUX_PEERS  := $(addprefix build/peers/,source-controller kustomize-controller)

.PHONY: flux
flux: $(BIN)/flux ## Build the flux command that the tests run against a node.

$(BIN)/flux $(FLUX_PEERS): $(FLUX_MODULE) | deps
	@$(STEP) "Building $(@F) of Flux" tools/flux/build.sh $(@F) $@
	@touch $@

.PHONY: peers
peers: $(PEERS) ## Build the upstream processes that make bench compares with.

build/peers/etcd: PACKAGE = go.etcd.io/etcd/server/v3
build/peers/containerd: PACKAGE = github.com/containerd/containerd/v2/cmd/containerd
build/peers/ptp build/peers/loopback: PACKAGE = github.com/containernetworking/plugins/plugins/main/$(@F)
build/peers/host-local: PACKAGE = github.com/containernetworking/plugins/plugins/ipam/$(@F)
build/peers/netload: test/bench/net/netload/netload.c | deps
	@$(STEP) "Building netload" sh -c 'mkdir -p $(@D) && cc -O2 -Wall -Wextra -Werror -static -o $@ $<'

build/peers/kube%: PACKAGE = k8s.io/kubernetes/cmd/$(@F)
$(PEERS) build/peers/kube-proxy: $(UPSTREAM_MODULE) | deps
	@$(STEP) "Building $(@F) as a separate process" go -C tools/upstream build -v -ldflags '-s -w $(K8S_LDFLAGS)' \
		-o $(CURDIR)/$@ $(PACKAGE)
	@touch $@

# The upstream end-to-end suite and what its images hold. Its libraries have the
# versions of go.mod, so that most of it is in the build cache already.
E2E          := build/e2e
E2E_MODULE   := tools/e2e/go.mod tools/e2e/go.sum
E2E_PROGRAMS := $(addprefix $(E2E)/programs/,agnhost nnp regression-issue-74839 etcd coredns)
e2e_sources   = $$(go -C tools/e2e list -m -f '{{.Dir}}' k8s.io/kubernetes)

.PHONY: e2e
e2e: build images build/test-images/index.json $(BIN)/kubectl $(E2E)/ginkgo $(E2E)/e2e.test $(E2E)/images/index.json

$(E2E)/e2e.test: $(E2E_MODULE) | deps
	@$(STEP) "Building the end-to-end suite of Kubernetes $(K8S_VERSION) (the first time takes minutes)" \
		go -C tools/e2e test -c -ldflags '-s -w $(K8S_LDFLAGS)' -o $(CURDIR)/$@ k8s.io/kubernetes/test/e2e
	@touch $@

$(E2E)/ginkgo: $(E2E_MODULE) | deps
	@$(STEP) "Building ginkgo" go -C tools/e2e build -v -ldflags '-s -w' -o $(CURDIR)/$@ github.com/onsi/ginkgo/v2/ginkgo
	@touch $@

$(E2E)/programs/agnhost: LDFLAGS_OF = -X main.Version=2.66.1
$(E2E)/programs/agnhost $(E2E)/programs/regression-issue-74839: PACKAGE = k8s.io/kubernetes/test/images/$(@F)
$(E2E)/programs/nnp: PACKAGE = k8s.io/kubernetes/test/images/nonewprivs
$(E2E)/programs/etcd: PACKAGE = go.etcd.io/etcd/server/v3
$(E2E)/programs/coredns: PACKAGE = ./coredns
$(E2E_PROGRAMS): $(E2E_MODULE) tools/e2e/coredns/main.go | deps
	@$(STEP) "Building $(@F) for the images of the suite" go -C tools/e2e build -v \
		-ldflags '-s -w $(LDFLAGS_OF)' -o $(CURDIR)/$@ $(PACKAGE)
	@touch $@

# The suite wants this one to be of an old release, with the libraries of its time.
$(E2E)/programs/sample-apiserver: tools/e2e/sample-apiserver/go.mod tools/e2e/sample-apiserver/go.sum | deps
	@$(STEP) "Building sample-apiserver for the images of the suite" go -C tools/e2e/sample-apiserver build -v \
		-ldflags '-s -w' -o $(CURDIR)/$@ k8s.io/sample-apiserver
	@touch $@

# The machine's own busybox will not do: see build.sh.
$(E2E)/programs/busybox: tools/e2e/busybox/build.sh | deps
	@$(STEP) "Building busybox for the images of the suite" $< $@

$(E2E)/images/index.json: $(E2E_PROGRAMS) $(E2E)/programs/sample-apiserver $(E2E)/programs/busybox $(wildcard test/conformance/images/*.go)
	@$(STEP) "Building the images of the suite" $(CONFORMANCE) images -sources "$(e2e_sources)"

.PHONY: clean
clean: ## Remove what was built; a running cluster and its repository stay.
	rm -rf build

.PHONY: help
help: ## Show this text.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: FORCE
FORCE:
