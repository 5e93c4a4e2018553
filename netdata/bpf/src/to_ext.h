/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * to_ext.h: tc egress on the uplink: answers of node ports get the node's address
 * back, and pods that speak to the outside borrow it.
 */
#pragma once

#include "masquerade.h"

static __always_inline int handle_to_ext(struct __sk_buff *skb)
{
	int verdict = TC_ACT_SHOT, pod;
	struct packet p = {};

	if (parse(skb, &p) != PARSE_OK)
		return PASS;
	pod = find_endpoint(&p.t.saddr) != 0;
	switch (p.kind) {
	case KIND_FLOW:
		switch (translate_known(skb, &p, NAT_EXT, &verdict)) {
		case STEP_VERDICT:
			return verdict;
		case STEP_TRANSLATED:
			/* A pod's flow was tracked where the pod sent it, a host process's was not. */
			if (!pod)
				ct_track(&p, FLOW_NAT, ORIGIN_NODE);
			return PASS;
		case STEP_AS_IS:
			return pod && needs_masquerade(&p.t.daddr) ? masquerade(skb, &p) : PASS;
		}
		return PASS;
	case KIND_ICMP_ERROR:
		switch (translate_error(skb, &p, NAT_EXT, &verdict)) {
		case STEP_VERDICT:
			return verdict;
		default:
			return PASS;
		}
	case KIND_FRAGMENT:
		return pod && needs_masquerade(&p.t.daddr) ? drop(DROP_FRAGMENT) : PASS;
	default:
		return pod && needs_masquerade(&p.t.daddr) ? drop(DROP_PROTOCOL) : PASS;
	}
}
