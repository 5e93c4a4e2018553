/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* conntrack.h: one row per flow, found from either end. */
#pragma once

#include "events.h"
#include "policy.h"

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

/*
 * ct_known: the flow is established, or was and has been closed. The receiver then remembers it
 * for a while: a connection that begins under the same ports and has nothing to do with it would
 * be to it an old segment of the one before.
 */
BORDER int ct_known(const struct tuple *t)
{
	struct tuple key;
	struct flow *f;

	if (!t)
		return 0;
	ct_key(t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	return f && (f->flags & FLOW_REPLIED) && !(f->flags & FLOW_RST);
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
	if (has_handshake(p->t.proto)) {
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

enum follow {
	FOLLOW_NOT,
	FOLLOW_AS_IS,  /* not translated */
	FOLLOW_ANSWER, /* to who began the flow, who may know the sender by another address */
};

/*
 * ct_follow is the short way: it notes a packet of a known flow that was admitted under the
 * policy in force. It does so for packets that travel between the real ends; who asks for
 * a service is translated first.
 */
BORDER int ct_follow(const struct packet *p)
{
	struct tuple key;
	struct flow *f;
	int swapped;

	if (!p || (has_handshake(p->t.proto) && starts_flow(p)))
		return FOLLOW_NOT;
	swapped = ct_key(&p->t, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	if (!f || f->revision != policy_revision())
		return FOLLOW_NOT;
	if ((f->flags & FLOW_NAT) && ct_from_originator(f, swapped))
		return FOLLOW_NOT;
	ct_touch(f, swapped, p, 0);
	return f->flags & FLOW_NAT ? FOLLOW_ANSWER : FOLLOW_AS_IS;
}

/* A connection that is under way and can be reset; any other packet may be the first of its flow. */
static __always_inline int ct_mid_stream(const struct packet *p)
{
	return p->t.proto == IPPROTO_TCP && !p->fragment && !starts_flow(p);
}

/*
 * ct_judge_again asks for a known flow what was asked when it began. The answer to a
 * datagram may be the beginning of a flow of its own, and is judged as such
 * when the one it answers is no longer allowed.
 */
static __always_inline int ct_judge_again(struct flow *f, const struct packet *p, int swapped,
					  enum origin origin, __u16 extra)
{
	int forth = ct_from_originator(f, swapped), why;
	struct tuple t = p->real;

	if ((f->flags | extra) & FLOW_NODE)
		return DROP_NONE;
	if (!forth)
		tuple_reverse(&p->real, &t);
	why = policy_judge(&t, forth ? origin : ORIGIN_POD);
	if (why && !forth && p->t.proto != IPPROTO_TCP && !policy_judge(&p->real, origin)) {
		f->flags ^= FLOW_SWAPPED;
		return DROP_NONE;
	}
	if (!why || !ct_mid_stream(p))
		return why;
	f->flags |= FLOW_RST; /* it goes soon, and its translations with it */
	return REFUSED_REVOKED;
}

/*
 * ct_track notes the packet in its flow, which it creates if need be and if policy
 * allows; it returns why the packet must not pass, or DROP_NONE. A connection request on a
 * flow that is closing starts it anew: a client that opens and closes quickly reuses
 * its ports.
 */
BORDER int ct_track(const struct packet *p, __u16 extra, enum origin origin)
{
	struct tuple key;
	struct flow *f;
	int swapped, why;
	const __u16 closing = FLOW_FIN_ORIG | FLOW_FIN_REPLY | FLOW_RST;
	__u32 revision = policy_revision();

	if (!p)
		return DROP_NONE;
	swapped = ct_key(&p->real, &key);
	f = bpf_map_lookup_elem(&ct, &key);
	if (origin == ORIGIN_NODE)
		extra |= FLOW_NODE;
	if (f && !((f->flags & closing) && has_handshake(p->t.proto) && starts_flow(p))) {
		if (f->revision != revision) {
			why = ct_judge_again(f, p, swapped, origin, extra);
			if (why)
				return why;
			f->revision = revision;
		}
		ct_touch(f, swapped, p, extra);
		return DROP_NONE;
	}
	why = origin == ORIGIN_NODE ? DROP_NONE : policy_judge(&p->real, origin);
	if (why)
		return why;
	if (p->tcp_flags & TCP_RST)
		return DROP_NONE; /* the end of something unknown is not a flow */

	struct flow fresh = {
		.seen = now(),
		.revision = revision,
		.flags = swapped | extra,
	};
	event_new(p, fresh.flags);
	if (f)
		*f = fresh; /* in place: cheaper than a new row, and nothing is evicted for it */
	else
		bpf_map_update_elem(&ct, &key, &fresh, BPF_ANY);
	return DROP_NONE;
}

/* ct_is_reply: the packet answers a flow that its destination began. */
static __always_inline int ct_is_reply(const struct tuple *t)
{
	struct tuple key;
	int swapped = ct_key(t, &key);
	struct flow *f = bpf_map_lookup_elem(&ct, &key);

	return f && !ct_from_originator(f, swapped);
}
