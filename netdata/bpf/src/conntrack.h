/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* conntrack.h: one row per flow, found from either end. */
#pragma once

#include "packet.h"

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
BORDER int ct_live(const struct tuple *t)
{
	struct tuple key;
	struct flow *f;

	if (!t)
		return 0;
	ct_key(t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	return f && (f->flags & FLOW_REPLIED) && !(f->flags & (FLOW_FIN_ORIG | FLOW_FIN_REPLY | FLOW_RST));
}

/* ct_touch notes a packet in its flow. Most change nothing: the cache line stays shared. */
static __always_inline void ct_touch(struct flow *f, int swapped, const struct packet *p, __u16 extra)
{
	int from_originator = ct_from_originator(f, swapped);
	__u16 flags = f->flags | extra;
	__u32 tick = now();

	if (!from_originator)
		flags |= FLOW_REPLIED;
	if (has_handshake(p->t.proto)) {
		if (p->tcp_flags & TCP_FIN)
			flags |= from_originator ? FLOW_FIN_ORIG : FLOW_FIN_REPLY;
		if (p->tcp_flags & TCP_RST)
			flags |= FLOW_RST;
	}
	if (flags != f->flags)
		f->flags = flags;
	if (tick != f->seen)
		f->seen = tick;
}

/*
 * ct_follow is the short way: it notes a packet of a known flow that is not
 * translated, and returns 0 for any other.
 */
BORDER int ct_follow(const struct packet *p)
{
	struct tuple key;
	struct flow *f;
	int swapped;

	if (!p)
		return 0;
	swapped = ct_key(&p->t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	if (!f || (f->flags & FLOW_NAT) || (has_handshake(p->t.proto) && starts_flow(p)))
		return 0;
	ct_touch(f, swapped, p, 0);
	return 1;
}

/*
 * ct_track notes the packet in its flow, which it creates if need be. A
 * connection request on a flow that is closing starts it anew: a client
 * that opens and closes quickly reuses its ports.
 */
BORDER int ct_track(const struct packet *p, __u16 extra)
{
	struct tuple key;
	struct flow *f;
	int swapped;
	const __u16 closing = FLOW_FIN_ORIG | FLOW_FIN_REPLY | FLOW_RST;

	if (!p)
		return 0;
	swapped = ct_key(&p->real, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	if (f && !((f->flags & closing) && has_handshake(p->t.proto) && starts_flow(p))) {
		ct_touch(f, swapped, p, extra);
		return 0;
	}
	if (p->tcp_flags & TCP_RST)
		return 0; /* the end of something unknown is not a flow */

	struct node_state *ns = node_state();
	struct flow fresh = {
		.seen = now(),
		.revision = ns ? ns->policy_revision : 0,
		.flags = swapped | extra,
	};
	if (f) {
		*f = fresh; /* in place: cheaper than a new row, and nothing is evicted for it */
		return 0;
	}
	bpf_map_update_elem(&ct, &key, &fresh, BPF_ANY);
	return 0;
}

/* ct_is_reply: the packet answers a flow that its destination began. */
static __always_inline int ct_is_reply(const struct tuple *t)
{
	struct tuple key;
	int swapped = ct_key(t, &key);
	struct flow *f = bpf_map_lookup_elem(&ct, &key);

	return f && !ct_from_originator(f, swapped);
}
