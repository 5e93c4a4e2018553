/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * to_pod.h: tc egress on the host side of a pod's veth, that is what the node itself
 * sends to the pod: probes, answers of DNS, of the API server and of other host
 * processes behind a Service. Traffic of other pods and of the uplink is redirected
 * past this hook.
 */
#pragma once

#include "balance.h"

static __always_inline int handle_to_pod(struct __sk_buff *skb)
{
	int verdict = TC_ACT_SHOT;
	struct packet p = {};
	enum step s;

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
		ct_track(&p, s == STEP_TRANSLATED ? FLOW_NAT : 0);
		return PASS;
	case KIND_ICMP_ERROR:
		return translate_error(skb, &p, NAT_POD, &verdict) == STEP_VERDICT ? verdict : PASS;
	default:
		return PASS;
	}
}
