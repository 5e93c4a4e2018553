/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tables.h: the maps shared with user space. Their layout is an interface: a
 * change needs a new layout version in maps/tables.go, because the maps are
 * pinned and outlive the agent.
 */
#pragma once

#include "family.h"

/*
 * A flow as seen on the wire. Key order: addresses, ports, protocol; ports in
 * network byte order. ICMP echo has its identifier as the port of the asking
 * side and 0 as the port of the answering side.
 */
struct tuple {
	struct addr saddr;
	struct addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};
SIZE_ASSERT(struct tuple, 16, 40);

/* One row for the whole node. */
struct node_state {
	__u32 policy_revision; /* flows stamped with another revision are judged anew */
	__u32 services_synced; /* 1 once the services table mirrored the API at least once */
};
_Static_assert(sizeof(struct node_state) == 8, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct node_state);
} state SEC(".maps");

/* Pod address -> where it lives. */
struct endpoint {
	__u32 ifindex; /* host side of the pod's veth */
	__u32 identity;
	__u8 mac[6]; /* of the pod's end */
	__u16 flags;
	__u64 netns; /* cookie of the pod's network namespace, 0 if it is not known */
};
_Static_assert(sizeof(struct endpoint) == 24, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/*
 * The same rows once more, at the place that the last bits of the address say: what a packet of a pod
 * asks twice costs no hash there. Addresses of one range of pods do not meet; where two do, the one
 * that came second is found in the table above. A place goes to another address only when no program
 * that may have read it before is still running, see maps/endpoints.go.
 */
#define NEAR_PODS 4096

struct near_pod {
	struct addr addr;
	struct addr pad; /* the row of either family is so the same to Go, and aligned */
	struct endpoint ep; /* its ifindex is 0 where nobody is */
};
SIZE_ASSERT(struct near_pod, 32, 56);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEAR_PODS);
	__type(key, __u32);
	__type(value, struct near_pod);
} near_pods SEC(".maps");

static __always_inline struct endpoint *find_endpoint(const struct addr *a)
{
	__u32 place = bpf_ntohl(a->word[ADDR_WORDS - 1]) % NEAR_PODS;
	struct near_pod *n = bpf_map_lookup_elem(&near_pods, &place);
	struct addr key;

	if (n && n->ep.ifindex && addr_equal(&n->addr, a))
		return &n->ep;
	key = *a; /* see BORDER */
	return bpf_map_lookup_elem(&endpoints, &key);
}

/* Key order: address, port, protocol, scope. */
struct service_key {
	struct addr addr;
	__be16 port;
	__u8 proto;
	__u8 scope; /* enum service_scope */
};
SIZE_ASSERT(struct service_key, 8, 20);

/*
 * Whose view of a frontend a row is. Most frontends look the same to everybody and have the
 * first row alone. A row whose address is zero stands for every address of the
 * node: node ports and host ports have such rows.
 */
enum service_scope {
	SCOPE_CLUSTER, /* for pods and the node's own processes */
	SCOPE_OUTSIDE, /* for the others, if the first row has SERVICE_OUTSIDE_VIEW */
};

enum service_flags {
	SERVICE_OUTSIDE_VIEW = 1 << 0,  /* clients outside the cluster have a row of their own */
	SERVICE_SOURCE_RANGES = 1 << 1, /* only clients that source_ranges knows are served */
	SERVICE_DROP_EMPTY = 1 << 2,    /* the endpoints are on other nodes, where a policy forbids to go */
	SERVICE_HOST_PORT = 1 << 3,     /* for user space: the row is a pod's host port */
};

/*
 * A service frontend owns the extent [base, base+count) of the slots array.
 * An update writes a new extent and then replaces this one value, so a reader
 * never sees a mixture.
 */
struct service {
	__u32 id;
	__u32 base;
	__u32 affinity; /* seconds; 0 is none */
	__u16 count;    /* 0: the address is known and has nobody behind it */
	__u16 flags;
};
_Static_assert(sizeof(struct service) == 16, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct slot {
	struct addr addr;
	__be16 port;
	__u8 flags;
	__u8 pad;
};
SIZE_ASSERT(struct slot, 8, 20);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Session affinity. Key order: client, service. */
struct affinity_key {
	struct addr client;
	__u32 service;
};
SIZE_ASSERT(struct affinity_key, 8, 20);

struct affinity {
	struct addr addr;
	__be16 port;
	__u16 pad;
	__u32 seen; /* ticks, see now() */
};
SIZE_ASSERT(struct affinity, 12, 24);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/*
 * Conntrack. The key is a tuple with its two ends ordered, so one row and one
 * lookup serve both directions. It describes the flow between the real ends,
 * that is after service translation and before masquerading.
 */
enum flow_flags {
	FLOW_SWAPPED = 1 << 0,   /* the originator is the second end of the key */
	FLOW_REPLIED = 1 << 1,   /* both directions were seen */
	FLOW_FIN_ORIG = 1 << 2,
	FLOW_FIN_REPLY = 1 << 3,
	FLOW_RST = 1 << 4,
	FLOW_NAT = 1 << 5,       /* the nat table has rows for it */
	FLOW_NODE = 1 << 6,      /* one end is the node itself: policy has no say */
};

struct flow {
	__u32 seen;     /* ticks, see now() */
	__u32 revision; /* policy revision at which it was admitted */
	__u16 flags;
	__u16 pad;
};
_Static_assert(sizeof(struct flow) == 12, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct flow);
} ct SEC(".maps");

/*
 * Translation: a tuple as it arrives at a hook -> the tuple it leaves with.
 * A flow has two rows, one per direction, each the mirror of the other.
 */
enum nat_scope {
	NAT_POD = 1 << 0, /* applied where the packet leaves or enters a pod's veth */
	NAT_EXT = 1 << 1, /* applied at the uplink */
};

struct nat {
	struct addr saddr;
	struct addr daddr;
	__be16 sport;
	__be16 dport;
	__u16 scope;
	__u16 to_real; /* 1: the tuple it leaves with is the one conntrack knows; 0: the other */
};
SIZE_ASSERT(struct nat, 16, 40);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, struct nat);
} nats SEC(".maps");

/* A host socket's peer as the process knows it. */
struct peer {
	struct addr backend;
	struct addr service;
	__be16 backend_port;
	__be16 service_port;
};
SIZE_ASSERT(struct peer, 12, 36);

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct peer);
} sock_peers SEC(".maps");

/* The same for sockets that are not connected. Key order: socket, backend. */
struct datagram_key {
	__u64 cookie;
	struct addr backend;
	__be16 port;
	__u16 pad;
	__u32 pad2[FAMILY == 4 ? 0 : 1]; /* the cookie wants 8 byte alignment */
};
SIZE_ASSERT(struct datagram_key, 16, 32);

struct datagram_peer {
	struct addr service;
	__be16 port;
	__u16 pad;
};
SIZE_ASSERT(struct datagram_peer, 8, 20);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct datagram_key);
	__type(value, struct datagram_peer);
} datagram_peers SEC(".maps");

/* The node's own addresses, beside the one in the configuration. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, __u32);
} node_addrs SEC(".maps");

/* Who may use a service. The prefix covers the service and then the client. */
struct source_range_key {
	__u32 prefix; /* bits: 32 of the service, then those of the client */
	__u32 service;
	struct addr client;
};
SIZE_ASSERT(struct source_range_key, 12, 24);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_range_key);
	__type(value, __u32);
} source_ranges SEC(".maps");

/* Destinations that see a pod's own address. */
struct range_key {
	__u32 prefix; /* bits */
	struct addr addr;
};
SIZE_ASSERT(struct range_key, 8, 20);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct range_key);
	__type(value, __u32);
} unmasqueraded SEC(".maps");

/* Pods of other nodes that are behind a tunnel, by their ranges: which of this node's addresses they answer through it. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct range_key);
	__type(value, struct addr);
} tunnelled SEC(".maps");

/* Addresses of load balancers that this node answers for on its uplink's link. */
struct announcement {
	__u8 mac[6]; /* of the uplink */
	__u16 pad;
};
_Static_assert(sizeof(struct announcement) == 8, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct announcement);
} announced SEC(".maps");

/*
 * Only the first fragment of a datagram has its ports; the others find them here.
 * Key order: addresses, identification, protocol.
 */
struct fragment_key {
	struct addr saddr;
	struct addr daddr;
	__be32 id;
	__u32 proto;
};
SIZE_ASSERT(struct fragment_key, 16, 40);

struct fragment_ports {
	__be16 sport;
	__be16 dport;
};
_Static_assert(sizeof(struct fragment_ports) == 4, "shared with Go");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2048);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

/* now counts ticks of 2^30 ns (1.07 s): a shift instead of a division, and 4 bytes. */
static __always_inline __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() >> 30;
}

static __always_inline struct node_state *node_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&state, &zero);
}

static __always_inline void tuple_reverse(const struct tuple *t, struct tuple *r)
{
	r->saddr = t->daddr;
	r->daddr = t->saddr;
	r->sport = t->dport;
	r->dport = t->sport;
	r->proto = t->proto;
	r->pad[0] = r->pad[1] = r->pad[2] = 0;
}
