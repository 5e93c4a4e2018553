// Package cosigntest signs artifacts in a registry for tests, in the formats of
// cosign, with keys and with certificates of a Sigstore of its own.
package cosigntest
