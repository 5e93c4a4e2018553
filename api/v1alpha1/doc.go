// Package v1alpha1 holds the kinds that no other convention covers: Cluster,
// Machine, TrustRoot and BootConfig, all of group bothy.dev/v1alpha1.
//
// Decode functions are strict: unknown fields, duplicate keys and wrong types
// are refused with file, line and field. Defaults are filled in by the decode
// functions, so that code which reads a decoded value never meets an empty
// setting. The package must not know where files come from or what is done
// with them.
package v1alpha1
