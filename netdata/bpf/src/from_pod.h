/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* from_pod.h: tc ingress on the host side of a pod's veth, that is what the pod sends. */
#pragma once

#include "balance.h"

static __always_inline enum step translate_from_pod(struct __sk_buff *skb, struct packet *p, int *verdict)
{
	enum step s = translate_known(skb, p, NAT_POD, verdict);

	if (s != STEP_AS_IS)
		return s;
	return balance_new(skb, p, NAT_POD, ANSWER_POD, verdict);
}

static __always_inline int forward_from_pod(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint *to = bpf_map_lookup_elem(&endpoints, &p->t.daddr);

	/* Everything that is not a pod of this node is the stack's business: it has the routes. */
	return to ? deliver(skb, to) : PASS;
}

static __always_inline int handle_from_pod(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	int verdict = TC_ACT_SHOT;
	struct packet p = {};
	struct iface *from;
	enum step s;

	switch (parse(skb, &p)) {
	case PARSE_OTHER:
		return PASS; /* another family, or ARP */
	case PARSE_BAD:
		return drop(DROP_MALFORMED);
	}
	if (addr_link_scope(&p.t.daddr))
		return drop(DROP_LINK_SCOPE);
	from = bpf_map_lookup_elem(&ifaces, &ifindex);
	if (!from || !addr_equal(&from->addr, &p.t.saddr))
		return drop(DROP_SPOOFED);

	switch (p.kind) {
	case KIND_FLOW:
		/* Addresses of the service range are never real ends: conntrack does not know them. */
		if (!in_service_range(&p.t.daddr) && ct_follow(&p))
			break;
		s = translate_from_pod(skb, &p, &verdict);
		if (s == STEP_VERDICT)
			return verdict;
		ct_track(&p, s == STEP_TRANSLATED ? FLOW_NAT : 0);
		break;
	case KIND_ICMP_ERROR:
		if (translate_error(skb, &p, NAT_POD, &verdict) == STEP_VERDICT)
			return verdict;
		break;
	case KIND_FRAGMENT:
		if (in_service_range(&p.t.daddr))
			return drop(DROP_FRAGMENT);
		break;
	default:
		if (in_service_range(&p.t.daddr))
			return drop(DROP_PROTOCOL);
	}
	return forward_from_pod(skb, &p);
}
