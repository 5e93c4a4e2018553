/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* from_pod.h: tc ingress on the host side of a pod's veth, that is what the pod sends. */
#pragma once

#include "reset.h"

static __always_inline enum step translate_from_pod(struct __sk_buff *skb, struct packet *p, int *verdict)
{
	enum step s = translate_known(skb, p, NAT_POD, verdict);

	/* A pod's own address is never a service, whatever the API says. */
	if (s != STEP_AS_IS || in_pod_range(&p->t.daddr))
		return s;
	return balance_new(skb, p, NAT_POD, ANSWER_POD, verdict);
}

#define FIB_FAMILY (FAMILY == 4 ? 2 : 10) /* AF_INET, AF_INET6 */

/* The node may have more addresses than the one on its uplink. The stack knows them: it does not forward there. */
static __noinline int stays_on_node(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = { .family = FIB_FAMILY, .ifindex = skb->ifindex };

#if FAMILY == 4
	fib.ipv4_src = p->t.saddr.word[0];
	fib.ipv4_dst = p->t.daddr.word[0];
#else
	__builtin_memcpy(fib.ipv6_src, &p->t.saddr, ADDR_LEN);
	__builtin_memcpy(fib.ipv6_dst, &p->t.daddr, ADDR_LEN);
#endif
	return bpf_fib_lookup(skb, &fib, sizeof(fib), 0) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

static __always_inline int track_from_pod(struct __sk_buff *skb, const struct packet *p, __u16 extra)
{
	int why = ct_track(p, extra, ORIGIN_POD);

	if (why == DROP_POLICY_EGRESS && stays_on_node(skb, p))
		return ct_track(p, extra, ORIGIN_NODE);
	return why;
}

static __always_inline int forward_from_pod(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint *to = find_endpoint(&p->t.daddr);

	/* Everything that is not a pod of this node is the stack's business: it has the routes. */
	return to ? deliver(skb, to) : PASS;
}

/* Addresses of the service range are never real ends: conntrack does not know them. */
static __always_inline int follow_from_pod(const struct packet *p)
{
	return in_service_range(&p->t.daddr) ? FOLLOW_NOT : ct_follow(p);
}

static __always_inline int handle_from_pod(struct __sk_buff *skb)
{
	int verdict = TC_ACT_SHOT, why, follow;
	struct packet p = {};
	struct endpoint *from;
	enum step s;

	switch (parse(skb, &p)) {
	case PARSE_OTHER:
		return PASS; /* another family, or ARP */
	case PARSE_BAD:
		return drop(DROP_MALFORMED);
	}
	if (addr_link_scope(&p.t.daddr))
		return drop(DROP_LINK_SCOPE);
	from = find_endpoint(&p.t.saddr);
	if (!from || from->ifindex != skb->ifindex)
		return drop(DROP_SPOOFED);

	switch (p.kind) {
	case KIND_FLOW:
		follow = follow_from_pod(&p);
		if (follow == FOLLOW_AS_IS)
			break;
		if (follow == FOLLOW_ANSWER) {
			if (translate_known(skb, &p, NAT_POD, &verdict) == STEP_VERDICT)
				return verdict;
			break;
		}
		s = translate_from_pod(skb, &p, &verdict);
		if (s == STEP_VERDICT)
			return verdict;
		why = track_from_pod(skb, &p, s == STEP_TRANSLATED ? FLOW_NAT : 0);
		if (why && deny(skb, &p, why, AT_FROM_POD) == STEP_VERDICT)
			return TC_ACT_SHOT;
		break;
	case KIND_ICMP_ERROR:
		s = translate_error(skb, &p, NAT_POD, &verdict);
		if (s == STEP_VERDICT)
			return verdict;
		why = judge_stray(skb, &p, s == STEP_TRANSLATED, ORIGIN_POD);
		if (why)
			return drop(why);
		break;
	case KIND_FRAGMENT:
		if (in_service_range(&p.t.daddr))
			return drop(DROP_FRAGMENT);
		why = judge_stray(skb, &p, 0, ORIGIN_POD);
		if (why)
			return drop(why);
		break;
	default:
		if (in_service_range(&p.t.daddr))
			return drop(DROP_PROTOCOL);
		why = judge_stray(skb, &p, 0, ORIGIN_POD);
		if (why)
			return drop(why);
	}
	return forward_from_pod(skb, &p);
}
