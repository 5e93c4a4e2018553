// Package dns serves the cluster's names on every node, with CoreDNS as a
// library.
//
// It listens on the cluster DNS addresses, which the node itself holds: a query never
// crosses the network and does not depend on a Service. Names of the cluster come from
// watches of the API, kept while the API is away; other names from the
// configured upstreams. Until the API has answered once, names of the cluster are refused,
// which makes resolvers try again, and never asked of an upstream, whose "no such name" they
// would remember.
//
// The package must not know who gave the node its addresses.
//
// server.go runs the two phases, corefile.go writes the configuration.
package dns
