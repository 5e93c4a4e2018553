// Package objects puts the objects into the API that the node itself needs:
// rights of its components, the endpoints of the API server, storage classes,
// registrations of aggregated APIs.
//
// They come as one multi-document manifest. [Applier.Apply] uses server-side
// apply and owns the fields it sets; at a later start it reads each object
// first and writes only what differs, so that a restart costs no write. It
// remembers what it applied in a ConfigMap and deletes what is no longer asked
// for, except objects whose deletion would take data with them.
//
// The package must not know who wrote the manifest and does not wait for
// anything: retrying is up to the caller.
//
// Map: manifest.go reads manifests, apply.go applies, inventory.go prunes,
// system.go holds the objects of the control plane itself.
package objects
