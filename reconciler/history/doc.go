// Package history remembers which commits a site ran, who signed them, what
// they changed and how long that took.
//
// The file holds one JSON object per line. A line is appended when a commit is
// accepted and another when its way has ended, so a commit costs two small
// writes; a line that a power cut tore is skipped. The history explains, it
// decides nothing: it may be lost or deleted without harm.
//
// The package must not know Git or Kubernetes: it gets values.
package history
