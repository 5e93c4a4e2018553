/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * from_ext.h: tc ingress on the uplink: node ports, and the answers to what pods
 * sent out under the node's address.
 *
 * A backend on this node gets the client's address unchanged. Its answer is
 * turned back at to_ext, where it leaves.
 */
#pragma once

#include "reset.h"

static __always_inline enum step translate_from_ext(struct __sk_buff *skb, struct packet *p, int *verdict)
{
	enum step s = translate_known(skb, p, NAT_EXT, verdict);

	if (s != STEP_AS_IS)
		return s;
	return balance_new(skb, p, NAT_EXT, ANSWER_WIRE, verdict);
}

static __always_inline int handle_from_ext(struct __sk_buff *skb)
{
	enum step s = STEP_AS_IS;
	int verdict = TC_ACT_SHOT, why;
	struct endpoint *to;
	struct packet p;

	/* What cannot be read here is for the stack to judge: the node has other business too. */
	if (parse(skb, &p) != PARSE_OK)
		return PASS;
	if (p.kind == KIND_FLOW)
		s = translate_from_ext(skb, &p, &verdict);
	else if (p.kind == KIND_ICMP_ERROR)
		s = translate_error(skb, &p, NAT_EXT, &verdict);
	if (s == STEP_VERDICT)
		return verdict;

	to = bpf_map_lookup_elem(&endpoints, &p.t.daddr);
	if (p.kind == KIND_FLOW && (to || s == STEP_TRANSLATED)) {
		why = ct_track(&p, s == STEP_TRANSLATED ? FLOW_NAT : 0, ORIGIN_OUTSIDE);
		if (why && deny(skb, &p, why, AT_FROM_EXT) == STEP_VERDICT)
			return TC_ACT_SHOT;
	} else if (to) {
		why = judge_stray(skb, &p, s == STEP_TRANSLATED, ORIGIN_OUTSIDE);
		if (why)
			return drop(why);
	}
	return to ? deliver(skb, to) : PASS;
}
