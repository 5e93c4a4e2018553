/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* drop.h: why a packet was dropped or refused, and where. One counter per reason, hook and CPU. */
#pragma once

#include "family.h"

/*
 * The order is shared with Go (maps/drops.go) and only ever grows at the end:
 * the counters are pinned and outlive the programs.
 */
enum drop_reason {
	DROP_NONE,
	DROP_MALFORMED,           /* headers are cut short or contradict each other */
	DROP_SPOOFED,             /* source is not the sender's: another than the pod's, or the node's from the wire */
	DROP_FRAGMENT,            /* a fragment needs translation and came before the first of its datagram */
	DROP_PROTOCOL,            /* a protocol without ports would need translation */
	DROP_SERVICES_NOT_SYNCED, /* unknown service address before the first full sync */
	DROP_NO_SNAT_PORT,        /* every tried source port towards the destination is taken */
	DROP_REWRITE,             /* the kernel refused to change the packet */
	DROP_NO_FLOW,             /* a segment to a service address that belongs to no flow */
	REFUSED_NO_ENDPOINT,      /* answered with RST, ICMP or ECONNREFUSED */
	REFUSED_NO_SERVICE,       /* same, no such port on this service address */
	REFUSED_NO_FLOW,          /* same, state of the flow was lost */
	DROP_LINK_SCOPE,          /* multicast to a pod's own link, on which nobody listens */
	DROP_POLICY_INGRESS,      /* a policy of the receiving pod does not allow it */
	DROP_POLICY_EGRESS,       /* a policy of the sending pod does not allow it */
	REFUSED_REVOKED,          /* a connection that policy no longer allows: both ends got a RST */
	DROP_NO_LOCAL_ENDPOINT,   /* the traffic policy is Local and the endpoints are on other nodes */
	DROP_SOURCE_RANGE,        /* the client is in none of loadBalancerSourceRanges */
	DROP_REASONS
};

/* Where in the dataplane. The order is shared with Go (maps/drops.go). */
enum hook {
	AT_UNKNOWN,
	AT_FROM_POD,
	AT_TO_POD,
	AT_FROM_EXT,
	AT_TO_EXT,
	AT_SOCKET,
	HOOKS = 8, /* room for more: the counters of a reason lie together */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_REASONS * HOOKS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

static __always_inline void count_at(enum drop_reason why, enum hook at)
{
	__u32 key = why * HOOKS + at;
	__u64 *n = bpf_map_lookup_elem(&drops, &key);

	if (n)
		(*n)++;
}

/* count is for places that do not know their hook and end in no verdict of their own. */
static __always_inline void count(enum drop_reason why)
{
	count_at(why, AT_UNKNOWN);
}

/*
 * drop is a verdict that carries its reason. It must be returned: the program's entry counts it
 * and takes the reason off, see settle() in events.h.
 */
#define REASON_SHIFT 8

static __always_inline int drop(enum drop_reason why)
{
	return TC_ACT_SHOT | why << REASON_SHIFT;
}

/* Leave the packet to whoever comes next on the hook, at last to the stack. */
#define PASS TC_ACT_UNSPEC
