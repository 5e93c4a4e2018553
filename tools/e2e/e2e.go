// Package e2e keeps the upstream end-to-end suite among the requirements of
// this module: the suite is a test, and a test cannot be a tool.
package e2e

import _ "k8s.io/kubernetes/test/e2e" // what `make conformance` builds and runs
