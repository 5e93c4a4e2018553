/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* masquerade.h: pods borrow the node's address for destinations that have no route to theirs. */
#pragma once

#include "balance.h"

/* needs_masquerade: pods of the cluster and the configured ranges know the way back to a pod. */
static __always_inline int needs_masquerade(const struct addr *to)
{
	struct range_key key = { .prefix = 8 * ADDR_LEN, .addr = *to };

	return !in_pod_range(to) && !bpf_map_lookup_elem(&unmasqueraded, &key);
}

static __always_inline int masquerade(struct __sk_buff *skb, struct packet *p)
{
	struct tuple want = p->t;
	int verdict = TC_ACT_SHOT;

	/* Somebody outside who has a route to the pod speaks to it directly. */
	if (ct_is_reply(&p->t))
		return PASS;
	want.saddr = CFG_ADDR(node);
	/* An answering echo has its identifier on the other side; it begins nothing. */
	if (p->t.proto == IPPROTO_ICMP_FAMILY && p->icmp_type != ICMP_ECHO_REQUEST)
		return drop(DROP_NO_FLOW);
	if (!nat_create(&p->t, &want, NAT_EXT, 0, 1))
		return drop(DROP_NO_SNAT_PORT);
	return apply(skb, p, &want, &verdict) == STEP_VERDICT ? verdict : PASS;
}
