// Package pool gives Services of type LoadBalancer addresses of the cluster's pools.
//
// [Allocator] decides, in memory and without side effects: which pools a Service may use,
// which addresses it keeps, and whether two Services may share one. [Controller] feeds it from
// informers and writes status.loadBalancer, on one node of the cluster at a time.
//
// Promises: an address stays with its Service as long as it may have it, also over restarts and
// with another node as the allocator: the Services' status is the only memory. Should two
// Services ever have been given the same address, the younger gets another.
//
// The package must not know how addresses are announced or balanced.
//
// request.go reads what a Service asks for, allocator.go decides, controller.go and status.go talk to
// the API.
package pool
