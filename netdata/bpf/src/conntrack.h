/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* conntrack.h: one row per flow, found from either end. */
#pragma once

#include "events.h"

/* ct_key orders the two ends. It returns FLOW_SWAPPED if it had to swap them. */
static __always_inline int ct_key(const struct tuple *t, struct tuple *key)
{
	int swap = addr_less(&t->daddr, &t->saddr) ||
		   (addr_equal(&t->saddr, &t->daddr) && t->dport < t->sport);

	if (swap) {
		tuple_reverse(t, key);
		return FLOW_SWAPPED;
	}
	*key = *t;
	return 0;
}

static __always_inline int ct_from_originator(const struct flow *f, int swapped)
{
	return (f->flags & FLOW_SWAPPED) == swapped;
}

/*
 * ct_live: the flow is established and may not be given another backend or be
 * displaced by another flow. A half-open one may: its peer did not answer.
 */
static __always_inline int ct_live(const struct tuple *t)
{
	struct tuple key;
	struct flow *f;

	ct_key(t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	return f && (f->flags & FLOW_REPLIED) && !(f->flags & (FLOW_FIN_ORIG | FLOW_FIN_REPLY | FLOW_RST));
}

/* ct_over: both sides have closed the connection, or one has reset it. */
static __always_inline int ct_over(__u16 flags)
{
	const __u16 both = FLOW_FIN_ORIG | FLOW_FIN_REPLY;

	return flags & FLOW_RST || (flags & both) == both;
}

/* ct_touch notes a packet in its flow. Most change nothing: the cache line stays shared. */
static __always_inline void ct_touch(struct flow *f, int swapped, const struct packet *p, __u16 extra)
{
	int from_originator = ct_from_originator(f, swapped);
	__u16 flags = f->flags | extra;
	__u32 tick = now();

	if (!from_originator)
		flags |= FLOW_REPLIED;
	if (p->t.proto == IPPROTO_TCP) {
		if (p->tcp_flags & TCP_FIN)
			flags |= from_originator ? FLOW_FIN_ORIG : FLOW_FIN_REPLY;
		if (p->tcp_flags & TCP_RST)
			flags |= FLOW_RST;
	}
	if (flags != f->flags) {
		if (ct_over(flags) && !ct_over(f->flags))
			event_end(p, from_originator, flags);
		f->flags = flags;
	}
	if (tick != f->seen)
		f->seen = tick;
}

/*
 * ct_follow is the short way: it notes a packet of a known flow that is not
 * translated, and returns 0 for any other.
 */
static __always_inline int ct_follow(const struct packet *p)
{
	struct tuple key;
	int swapped = ct_key(&p->t, &key);
	struct flow *f = bpf_map_lookup_elem(&ct, &key);

	if (!f || (f->flags & FLOW_NAT) || (p->t.proto == IPPROTO_TCP && starts_flow(p)))
		return 0;
	ct_touch(f, swapped, p, 0);
	return 1;
}

/*
 * ct_track notes the packet in its flow, which it creates if need be. A
 * connection request on a flow that is closing starts it anew: a client
 * that opens and closes quickly reuses its ports.
 */
static __always_inline void ct_track(const struct packet *p, __u16 extra)
{
	struct tuple key;
	int swapped = ct_key(&p->real, &key);
	struct flow *f = bpf_map_lookup_elem(&ct, &key);
	const __u16 closing = FLOW_FIN_ORIG | FLOW_FIN_REPLY | FLOW_RST;

	if (f && !((f->flags & closing) && p->t.proto == IPPROTO_TCP && starts_flow(p))) {
		ct_touch(f, swapped, p, extra);
		return;
	}
	if (p->tcp_flags & TCP_RST)
		return; /* the end of something unknown is not a flow */

	struct node_state *ns = node_state();
	struct flow fresh = {
		.seen = now(),
		.revision = ns ? ns->policy_revision : 0,
		.flags = swapped | extra,
	};
	event_new(p, fresh.flags);
	if (f) {
		*f = fresh; /* in place: cheaper than a new row, and nothing is evicted for it */
		return;
	}
	bpf_map_update_elem(&ct, &key, &fresh, BPF_ANY);
}

/* ct_is_reply: the packet answers a flow that its destination began. */
static __always_inline int ct_is_reply(const struct tuple *t)
{
	struct tuple key;
	int swapped = ct_key(t, &key);
	struct flow *f = bpf_map_lookup_elem(&ct, &key);

	return f && !ct_from_originator(f, swapped);
}
