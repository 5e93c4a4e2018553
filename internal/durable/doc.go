// Package durable writes small files so that a power cut leaves either the
// old content or the new one, never a mixture and never an empty file.
//
// Every write goes to a temporary file in the target directory, is fsynced,
// renamed over the target, and the directory is fsynced. Callers therefore
// need no recovery code: what they read back was written whole.
//
// It must not know what the files mean.
package durable
