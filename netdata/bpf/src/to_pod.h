/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * to_pod.h: tc egress on the host side of a pod's veth, that is what the node itself
 * sends to the pod: probes, answers of DNS, of the API server and of other host
 * processes behind a Service. Traffic of other pods and of the uplink is redirected
 * past this hook; what the stack forwards from an interface that has no program
 * comes by here, and is from the outside as far as policy is concerned.
 */
#pragma once

#include "reset.h"

static __always_inline int handle_to_pod(struct __sk_buff *skb)
{
	enum origin origin = skb->ingress_ifindex ? ORIGIN_OUTSIDE : ORIGIN_NODE;
	int verdict = TC_ACT_SHOT, why;
	struct packet p = {};
	enum step s;

	/* Back where it came from: a reset of the pod's own connection, see reset.h. */
	if (skb->ingress_ifindex == skb->ifindex)
		return PASS;
	switch (parse(skb, &p)) {
	case PARSE_OTHER:
		return PASS;
	case PARSE_BAD:
		return drop(DROP_MALFORMED);
	}
	switch (p.kind) {
	case KIND_FLOW:
		s = translate_known(skb, &p, NAT_POD, &verdict);
		if (s == STEP_VERDICT)
			return verdict;
		why = ct_track(&p, s == STEP_TRANSLATED ? FLOW_NAT : 0, origin);
		if (why && deny(skb, &p, why, AT_TO_POD) == STEP_VERDICT)
			return TC_ACT_SHOT;
		return PASS;
	case KIND_ICMP_ERROR:
		s = translate_error(skb, &p, NAT_POD, &verdict);
		if (s == STEP_VERDICT)
			return verdict;
		break;
	default:
		s = STEP_AS_IS;
	}
	why = origin == ORIGIN_OUTSIDE ? judge_stray(skb, &p, s == STEP_TRANSLATED, origin) : DROP_NONE;
	return why ? drop(why) : PASS;
}
